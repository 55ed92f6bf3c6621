"""Multi30k: captions of Flickr30k images in English and German, 29,000 / 1,014 / 1,000 pairs (Elliott et al. 2016)."""

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
NAME = "bentrevett/multi30k"


def source(
    splits: Sequence[str] = (), *, direction: Literal["en-de", "de-en"] = "en-de", revision: str = "main"
) -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, revision=revision)


def rows(split: str, *, direction: Literal["en-de", "de-en"] = "en-de", revision: str = "main") -> Rows:
    """Multi30k image captions, English-German (bentrevett/multi30k; test is test_2016_flickr).

    Args:
        split: train, validation or test; `a+b` for both.
        direction: From which language into which.
        revision: The hub's branch or commit.
    """
    data = read(source([split], revision=revision), split)
    return Rows(data, partial(pair, direction=direction))
