"""C4 (English): cleaned web pages, the calibration text of most pruning papers (Raffel et al. 2020).

Reads the first shard of each split only, as SparseGPT and Wanda do: 356,317 training pages, not the 365M of all shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import keep
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "text"
SPLITS = ("train", "validation")
NAME, CONFIG = "allenai/c4", "en"
SHARDS = {"train": "en/c4-train.00000-of-01024.json.gz", "validation": "en/c4-validation.00000-of-00008.json.gz"}


def source(splits: Sequence[str] = (), *, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, config=CONFIG, revision=revision, alone=True)


def rows(split: str, *, revision: str = "main") -> Rows:
    """C4 English web pages, first shard of the split (allenai/c4 en).

    Args:
        split: train or validation; `a+b` for both.
        revision: The hub's branch or commit.
    """
    shards = {name: SHARDS[name] for name in split.split("+") if name in SHARDS}
    return Rows(read(source([split], revision=revision), split, files=shards), partial(keep, columns=("text",)))
