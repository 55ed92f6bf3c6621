"""CNN/DailyMail: news articles with their highlights, 287,113 / 13,368 / 11,490 (See et al., arXiv:1704.04368).

The article is the instruction: a template says what to do with it. Highlights are one a line, as ROUGE-Lsum reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import instruction
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "instruction"
SPLITS = ("train", "validation", "test")
NAME, CONFIG = "abisee/cnn_dailymail", "3.0.0"


def source(splits: Sequence[str] = (), *, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, config=CONFIG, revision=revision)


def rows(split: str, *, revision: str = "main") -> Rows:
    """News articles and their highlights (abisee/cnn_dailymail 3.0.0).

    Args:
        split: train, validation or test; `a+b` for both.
        revision: The hub's branch or commit.
    """
    data = read(source([split], revision=revision), split, config=CONFIG)
    return Rows(data, partial(instruction, asks=("article",), answers="highlights"))
