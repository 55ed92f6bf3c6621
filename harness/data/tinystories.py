"""TinyStories: short stories in a young child's words, written by language models (Eldan & Li 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import keep
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "text"
SPLITS = ("train", "validation")
NAME = "roneneldan/TinyStories"


def source(splits: Sequence[str] = (), *, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, revision=revision)


def rows(split: str, *, revision: str = "main") -> Rows:
    """TinyStories, one story a row (roneneldan/TinyStories).

    Args:
        split: train or validation; `a+b` for both.
        revision: The hub's branch or commit.
    """
    return Rows(read(source([split], revision=revision), split), partial(keep, columns=("text",)))
