"""SlimPajama: 627 billion tokens of deduplicated text and code, of Sparse Llama's pretraining too (Cerebras 2023).

The training split lies in ten chunks of thousands of files; one file is read by default, because 600 GB are rarely
wanted: `files` says which, and all of a chunk is about 63 billion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import keep
from harness.data._hub import find, read
from harness.data._rows import Rows, check_splits
from harness.sources import Source

KIND = "text"
SPLITS = ("train",)
NAME = "cerebras/SlimPajama-627B"


def source(
    splits: Sequence[str] = (), *, files: str = "chunk1/example_train_0.jsonl.zst", revision: str = "main"
) -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, revision=revision, alone=True)


def rows(split: str, *, files: str = "chunk1/example_train_0.jsonl.zst", revision: str = "main") -> Rows:
    """Web text, books and code, deduplicated (cerebras/SlimPajama-627B).

    Args:
        split: train.
        files: Which files below train/, as a pattern: chunk1/example_train_1*.jsonl.zst.
        revision: The hub's branch or commit.
    """
    check_splits(NAME, [split], SPLITS)
    data = read(source([split], revision=revision), split, files={split: f"train/{files}"})
    return Rows(data, partial(keep, columns=("text",)))
