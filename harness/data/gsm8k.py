"""GSM8K: grade-school maths problems with worked answers, 7,473 train and 1,319 test (Cobbe et al. 2021).

An answer's steps hold calculator marks such as <<3+4=7>>; its last line is `#### 7`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import keep
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "reasoning"
SPLITS = ("train", "test")
NAME, CONFIG = "openai/gsm8k", "main"


def source(splits: Sequence[str] = (), *, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, config=CONFIG, revision=revision)


def rows(split: str, *, revision: str = "main") -> Rows:
    """GSM8K grade-school maths problems (openai/gsm8k main).

    Args:
        split: train or test.
        revision: The hub's branch or commit.
    """
    data = read(source([split], revision=revision), split, config=CONFIG)
    return Rows(data, partial(keep, columns=("question", "answer")))
