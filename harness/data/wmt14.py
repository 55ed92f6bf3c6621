"""WMT14 German-English news translation: train (4.51M pairs), validation (newstest2013), test (newstest2014).

SquareHead reports BLEU on the hub's validation split and never uses test (papers' recipe, TACO4NLP).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from harness.data._columns import pair
from harness.data._hub import find, read
from harness.data._rows import Rows
from harness.sources import Source

KIND = "translation"
SPLITS = ("train", "validation", "test")
NAME, CONFIG = "wmt/wmt14", "de-en"


def source(
    splits: Sequence[str] = (), *, direction: Literal["en-de", "de-en"] = "en-de", revision: str = "main"
) -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, config=CONFIG, revision=revision)


def rows(split: str, *, direction: Literal["en-de", "de-en"] = "en-de", revision: str = "main") -> Rows:
    """WMT14 news, English-German (wmt/wmt14 de-en; validation is newstest2013).

    Args:
        split: train, validation or test; `a+b` for both.
        direction: From which language into which.
        revision: The hub's branch or commit.
    """
    data = read(source([split], revision=revision), split, config=CONFIG)
    return Rows(data, partial(pair, direction=direction, column="translation"))
