from __future__ import annotations

import pytest

from harness.data import tinystories
from harness.problems import Problem


def test_rows_are_stories(put):
    put("roneneldan/TinyStories", {"default": {"train": [{"text": "Once."}], "validation": [{"text": "Twice."}]}})
    assert tinystories.rows("validation")[0] == {"text": "Twice."}


@pytest.mark.mirror
def test_real_stories(real_mirror):
    rows = tinystories.rows("train")
    assert len(rows) == 2316 and rows[0]["text"].startswith("One day, a little girl named Lily")
    with pytest.raises(Problem, match="there is: train"):
        tinystories.source(["validation"])
