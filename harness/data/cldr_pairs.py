"""English-German pairs that Unicode CLDR states, through `babel`: a real, rule-true language pair of a tiny size.

Dates, times, spans of time, quantities, amounts of money, names of countries, languages and scripts, and lists of them,
each formatted by CLDR's patterns for `en` and for `de` (in `_cldr.py`). No-break spaces are plain spaces here.

The split of a phrase is a hash of its English side. Bare names are training pairs, and validation and test hold only
phrases whose every word is in the training pairs, so a test phrase is a new composition of known atoms and BLEU
measures rules learnt, not words guessed. English phrases that CLDR says in two ways in German are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from harness.data._cldr import phrases
from harness.data._rows import Rows, check_splits, cover_first, first, share, split_of
from harness.ranges import Count
from harness.sources import Source, generated

KIND = "translation"
SPLITS = ("train", "validation", "test")
VERSION = "1"
HELD_OUT = 250


def source(splits: Sequence[str] = (), *, size: Count = 4000) -> Source:
    """The installed babel's CLDR; raises a `Problem` for an unknown split."""
    check_splits("cldr_pairs", splits, SPLITS)
    return generated("cldr_pairs", VERSION, "babel")


def rows(split: str, *, size: Count = 4000) -> Rows:
    """English-German dates, quantities, money and names from Unicode CLDR (generated).

    Args:
        split: train, or validation or test (250 pairs each, whatever `size` is).
        size: Number of training pairs.
    """
    check_splits("cldr_pairs", [split], SPLITS)
    pairs, least = _splits()[split]
    return Rows(first("cldr_pairs", pairs, size, least) if split == "train" else pairs, _row)


def _row(pair: tuple[str, str]) -> dict[str, str]:
    return {"source": pair[0], "target": pair[1]}


@cache
def _splits() -> dict[str, tuple[list[tuple[str, str]], int]]:
    """Split -> its pairs, and how many of them must be taken for all its words."""
    found: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for english, german, atom in sorted(phrases(), key=lambda phrase: share(phrase[0])):
        found["train" if atom else split_of(f"split {english}")].append((english, german))
    train, least = cover_first(found["train"], _words)
    known = set().union(*map(_words, train[:least]))
    held_out = {split: [pair for pair in found[split] if _words(pair) <= known][:HELD_OUT] for split in SPLITS[1:]}
    return {"train": (train, least)} | {split: (pairs, 0) for split, pairs in held_out.items()}


def _words(pair: tuple[str, str]) -> set[str]:
    return {f"{language} {word}" for language, text in enumerate(pair) for word in re.findall(r"\w+|[^\w\s]", text)}
