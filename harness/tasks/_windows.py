"""Windows of one length over a run of tokens, cut when they are read; the tokens may lie in a memory-mapped file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from harness.problems import Problem


class Windows(Sequence[dict[str, list[int]]]):
    """The run's windows, which do not overlap, its tail dropped; an item holds one as `input_ids`.

    Attributes:
        length: Tokens of every window.
    """

    def __init__(self, ids: numpy.ndarray, length: int):
        """Takes token ids [tokens].

        Raises:
            Problem: They are fewer than one window.
        """
        if len(ids) < length:
            said = f"the text has {len(ids)} tokens, fewer than one window of {length}"
            raise Problem(said, hint="take a smaller window")
        self._ids, self.length = ids, length

    def __len__(self) -> int:
        return len(self._ids) // self.length

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        at = index % len(self) * self.length
        return {"input_ids": self._ids[at : at + self.length].tolist()}
