"""UltraChat 200k: filtered conversations of several turns, 207,865 / 23,110 (Ding et al., arXiv:2305.14233).

A row is a whole conversation as text, a line with the role before each turn. The hub's `train_sft` and `test_sft` are
`train` and `test` here; no end-of-text token stands between the turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import chat
from harness.data._hub import find, read
from harness.data._rows import Rows, check_splits
from harness.sources import Source

KIND = "text"
SPLITS = ("train", "test")
NAME = "HuggingFaceH4/ultrachat_200k"
THEIRS = {split: f"{split}_sft" for split in SPLITS}


def source(splits: Sequence[str] = (), *, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    check_splits(NAME, splits, SPLITS)
    theirs = tuple(THEIRS.values())
    return find(NAME, known=theirs, splits=[THEIRS[split] for split in splits], revision=revision)


def rows(split: str, *, revision: str = "main") -> Rows:
    """Conversations of several turns as text (HuggingFaceH4/ultrachat_200k).

    Args:
        split: train or test.
        revision: The hub's branch or commit.
    """
    data = read(source([split], revision=revision), THEIRS[split])
    return Rows(data, partial(chat, column="messages"))
