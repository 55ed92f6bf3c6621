from __future__ import annotations

import gzip
import json

import pytest

from harness.data import c4
from harness.problems import Problem


def test_first_shard_of_the_split_alone_is_read(tmp_path, monkeypatch):
    folder = tmp_path / "datasets/allenai/c4/en"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    shards = {
        "c4-train.00000-of-01024": "first",
        "c4-train.00001-of-01024": "second",
        "c4-validation.00000-of-00008": "v",
    }
    for name, text in shards.items():
        with gzip.open(folder / f"{name}.json.gz", "wt") as file:
            file.write(json.dumps({"text": text, "url": "u"}) + "\n")
    assert list(c4.rows("train")) == [{"text": "first"}]
    assert list(c4.rows("train+validation")) == [{"text": "first"}, {"text": "v"}]


@pytest.mark.mirror
def test_real_pages(real_mirror):
    rows = c4.rows("train")
    assert len(rows) == 1480 and len(rows[0]["text"]) > 100
    with pytest.raises(Problem, match="there is: train"):
        c4.source(["validation"])
