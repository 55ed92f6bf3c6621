"""Alpaca's 52,002 instructions answered by GPT-4 (Peng et al., arXiv:2304.03277), which LoSA, LoRS and SPP tune on.

An instruction's input, where it has one, follows it after a blank line.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import instruction
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "instruction"
SPLITS = ("train",)
NAME = "vicgalle/alpaca-gpt4"


def source(splits: Sequence[str] = (), *, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, revision=revision)


def rows(split: str, *, revision: str = "main") -> Rows:
    """Instructions of Alpaca with answers by GPT-4 (vicgalle/alpaca-gpt4).

    Args:
        split: train.
        revision: The hub's branch or commit.
    """
    data = read(source([split], revision=revision), split)
    return Rows(data, partial(instruction, asks=("instruction", "input"), answers="output"))
