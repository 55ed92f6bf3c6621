"""Evol-CodeAlpaca: 111,272 programming tasks with solutions, made as WizardCoder's were (Sparse Llama's code)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import instruction
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "instruction"
SPLITS = ("train",)
NAME = "theblackcat102/evol-codealpaca-v1"


def source(splits: Sequence[str] = (), *, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, revision=revision)


def rows(split: str, *, revision: str = "main") -> Rows:
    """Programming tasks with solutions (theblackcat102/evol-codealpaca-v1).

    Args:
        split: train.
        revision: The hub's branch or commit.
    """
    data = read(source([split], revision=revision), split)
    return Rows(data, partial(instruction, asks=("instruction",), answers="output"))
