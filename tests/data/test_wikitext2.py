from __future__ import annotations

import pytest

from harness.data import wikitext2
from harness.problems import Problem


def test_raw_and_tokenised_are_two_configurations(put):
    put(
        "Salesforce/wikitext",
        {
            "wikitext-2-raw-v1": {"test": [{"text": ""}, {"text": " = Aardvark = \n"}]},
            "wikitext-2-v1": {"train": [{"text": " <unk> \n"}], "test": [{"text": " = <unk> = \n"}]},
        },
    )
    assert [row["text"] for row in wikitext2.rows("test")] == ["", " = Aardvark = \n"]
    assert wikitext2.rows("train", raw=False)[0] == {"text": " <unk> \n"}
    with pytest.raises(Problem, match=r"wikitext-2-raw-v1.* has no split 'train' here"):
        wikitext2.source(["train"])


@pytest.mark.mirror
def test_real_lines(real_mirror):
    rows = wikitext2.rows("test")
    assert len(rows) == 4358 and rows[1]["text"] == " = Robert Boulter = \n"
    assert len(wikitext2.rows("train", raw=False)) == 36_718
    with pytest.raises(Problem, match="there is: test, validation"):
        wikitext2.rows("train", raw=True)
