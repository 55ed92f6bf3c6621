from __future__ import annotations

import pytest

from harness.data import multi30k


def test_rows_are_pairs_in_the_asked_direction(put):
    put("bentrevett/multi30k", {"default": {"test": [{"en": "A dog.", "de": "Ein Hund."}]}})
    assert multi30k.rows("test")[0] == {"source": "A dog.", "target": "Ein Hund."}
    assert multi30k.rows("test", direction="de-en")[0] == {"source": "Ein Hund.", "target": "A dog."}


@pytest.mark.mirror
def test_real_captions(real_mirror):
    test = multi30k.rows("test")
    assert len(test) == 1000
    assert test[0]["source"] == "A man in an orange hat starring at something."
    assert len(multi30k.rows("train+validation")) == 30_014
