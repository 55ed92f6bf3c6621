"""Grade-school word problems in GSM8K's format: a question; steps with marks such as <<3+4=7>>; last line `#### 7`.

A problem is a template with numbers; names and things only dress it. Its split is a hash of template and numbers, so no
test problem is a training problem with another name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product

from harness.data._rows import Rows, check_splits, first, share, split_of
from harness.data._stories import STORIES, dressed, solved
from harness.ranges import Count
from harness.sources import Source, generated

KIND = "reasoning"
SPLITS = ("train", "validation", "test")
VERSION = "1"
HELD_OUT = 200


def source(splits: Sequence[str] = (), *, size: Count = 2000) -> Source:
    """Our generator; raises a `Problem` for an unknown split."""
    check_splits("arithmetic", splits, SPLITS)
    return generated("arithmetic", VERSION)


def rows(split: str, *, size: Count = 2000) -> Rows:
    """Grade-school word problems with worked answers in GSM8K's format (generated).

    Args:
        split: train, or validation or test (200 problems each, whatever `size` is).
        size: Number of training problems.
    """
    check_splits("arithmetic", [split], SPLITS)
    problems = _splits()[split]
    return Rows(first("arithmetic", problems, size) if split == "train" else problems[:HELD_OUT], _row)


def _row(problem: tuple[str, str]) -> dict[str, str]:
    return {"question": problem[0], "answer": problem[1]}


@cache
def _splits() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    keyed = {
        f"{number} {values}": (story, values)
        for number, story in enumerate(STORIES)
        for values in product(*story.numbers)
    }
    for key in sorted(keyed, key=share):
        story, values = keyed[key]
        if steps := solved(story, values):
            found[split_of(f"split {key}")].append(dressed(story, values, steps, key))
    return found
