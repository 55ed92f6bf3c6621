"""Instructions about words with the one right response each: which is longer, spell it, put three in order.

For tiny runs of whatever is tuned on instructions. The words stand in this file; the split of what is asked of them is
its hash, so no test instruction is a training instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations

from harness.data._rows import Rows, check_splits, first, share, split_of
from harness.ranges import Count
from harness.sources import Source, generated

KIND = "instruction"
SPLITS = ("train", "validation", "test")
VERSION = "1"
HELD_OUT = 200
WORDS = (
    *("apple", "bread", "chair", "dream", "eagle", "flame", "grape", "house", "island", "jacket", "kettle", "lemon"),
    *("music", "night", "ocean", "paper", "queen", "river", "stone", "table", "uncle", "valley", "window", "yellow"),
    *("zebra", "bridge", "candle", "garden", "hammer", "ladder"),
)


def source(splits: Sequence[str] = (), *, size: Count = 2000) -> Source:
    """Our generator; raises a `Problem` for an unknown split."""
    check_splits("wordplay", splits, SPLITS)
    return generated("wordplay", VERSION)


def rows(split: str, *, size: Count = 2000) -> Rows:
    """Instructions about words and their right responses (generated).

    Args:
        split: train, or validation or test (200 instructions each, whatever `size` is).
        size: Number of training instructions.
    """
    check_splits("wordplay", [split], SPLITS)
    asked = _splits()[split]
    return Rows(first("wordplay", asked, size) if split == "train" else asked[:HELD_OUT], _row)


def _row(pair: tuple[str, str]) -> dict[str, str]:
    return {"instruction": pair[0], "response": pair[1]}


@cache
def _splits() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for pair in sorted(_pairs(), key=lambda pair: share(pair[0])):
        found[split_of(f"split {pair[0]}")].append(pair)
    return found


def _pairs() -> list[tuple[str, str]]:
    """Returns every instruction with its response."""
    pairs = []
    for one, two in permutations(WORDS, 2):
        pairs.append((f"Which of the words {one} and {two} is longer?", _longer(one, two)))
        pairs.append((f"Join the first letters of {one} and {two}.", one[0] + two[0]))
        pairs.append((f"Spell {one}, then write {two}.", f"{'-'.join(one)} {two}"))
    for three in permutations(WORDS[:12], 3):
        pairs.append((f"Put these words in order: {', '.join(three)}", ", ".join(sorted(three))))
    return pairs


def _longer(one: str, two: str) -> str:
    return "They are as long." if len(one) == len(two) else max(one, two, key=len)
