"""Random windows of long documents, the calibration draw of SparseGPT and Wanda over C4.

Their released code tries random documents until one has more than `length` tokens, and takes `length` tokens of it from
a random place. Here a document is never taken twice, and where its window begins follows from its index and a seed, so
that one document always gives the same window.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from harness.problems import Problem


class Crops(Sequence[dict[str, list[int]]]):
    """One window of every document longer than `length` tokens; documents are tokenised when they are looked at.

    `draw` looks at no more documents than it needs. The length of the sequence, and so its indexing, looks at all.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]], processor: Any, length: int, seed: int):
        self._rows, self._processor, self._length, self._seed = rows, processor, length, seed

    def draw(self, count: int, seed: int) -> list[dict[str, list[int]]]:
        """Returns the windows of `count` different documents, tried in an order that the seed gives.

        Raises:
            Problem: Fewer documents are long enough.
        """
        found: list[dict[str, list[int]]] = []
        for index in random.Random(seed).sample(range(len(self._rows)), len(self._rows)):
            if (window := self._window(index)) is not None:
                found.append(window)
            if len(found) == count:
                return found
        raise Problem(
            f"{count} windows are asked for, and {len(found)} of {len(self._rows)} documents have more than "
            f"{self._length} tokens",
            hint="take more documents, fewer samples, or a smaller length; cut=joined joins short documents",
        )

    def __len__(self) -> int:
        return len(self._long)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self._window(self._long[index])

    @cached_property
    def _long(self) -> list[int]:
        return [index for index in range(len(self._rows)) if self._window(index) is not None]

    def _window(self, index: int) -> dict[str, list[int]] | None:
        ids = self._processor(self._rows[index]["text"], verbose=False).input_ids
        if len(ids) <= self._length:
            return None
        start = random.Random(f"{self._seed}/{index}").randrange(len(ids) - self._length)
        return {"input_ids": ids[start : start + self._length]}
