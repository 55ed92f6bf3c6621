"""Commonsense170K: the training sets of eight commonsense suites as instructions (Hu et al., arXiv:2304.01933)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import instruction
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "instruction"
SPLITS = ("train",)
NAME = "zwhe99/commonsense_170k"


def source(splits: Sequence[str] = (), *, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, revision=revision)


def rows(split: str, *, revision: str = "main") -> Rows:
    """Eight commonsense suites as instructions (zwhe99/commonsense_170k).

    Args:
        split: train.
        revision: The hub's branch or commit.
    """
    data = read(source([split], revision=revision), split)
    return Rows(data, partial(instruction, asks=("instruction", "input"), answers="output"))
