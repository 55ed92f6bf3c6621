"""WikiText-2: Wikipedia articles, one line a row, for the perplexity that pruning papers report (Merity et al. 2016).

raw=true is the raw text of most papers (wikitext-2-raw-v1); raw=false the tokenised one with `<unk>` (wikitext-2-v1),
whose perplexities are not comparable. Rows are the hub's lines, empty ones too, which papers join by two newlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._columns import keep
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "text"
SPLITS = ("train", "validation", "test")
NAME = "Salesforce/wikitext"
CONFIGS = {True: "wikitext-2-raw-v1", False: "wikitext-2-v1"}


def source(splits: Sequence[str] = (), *, raw: bool = True, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split of this form cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, config=CONFIGS[raw], revision=revision)


def rows(split: str, *, raw: bool = True, revision: str = "main") -> Rows:
    """WikiText-2 lines (Salesforce/wikitext), raw or tokenised.

    Args:
        split: train, validation or test; `a+b` for both.
        raw: wikitext-2-raw-v1, or wikitext-2-v1 (a mirror may hold the train split of v1 only).
        revision: The hub's branch or commit.
    """
    data = read(source([split], raw=raw, revision=revision), split, config=CONFIGS[raw])
    return Rows(data, partial(keep, columns=("text",)))
