"""The k smallest of the scores of all layers together, exactly, with one layer in memory at a time.

float32 numbers are mapped to integers of the same order; two passes over the layers count their upper and then their
lower 16 bits, which pins the k-th smallest to its last bit, and a third counts what lies below it in each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from harness.problems import Problem

_PIECE = 1 << 22
_HALF = 1 << 16


def smallest(lookup: Callable[[str], Tensor], names: Iterable[str], number: int) -> dict[str, int]:
    """Returns how many of each layer's scores are among the `number` smallest; of equal ones the first layers' are.

    Args:
        lookup: Layer name -> its scores, any shape, compared as float32; called three times a layer.
        names: The layers.
        number: How many in all, at most as many as there are scores.

    Raises:
        Problem: A score is not a finite number; its layer is named.
    """
    names = list(names)
    if number == 0:
        return dict.fromkeys(names, 0)
    at, left = _bucket(_histogram((keys >> 16) + _HALF // 2 for name in names for keys in _keys(lookup, name)), number)
    top = at - _HALF // 2
    within = (keys[keys >> 16 == top] for name in names for keys in _keys(lookup, name))
    low, left = _bucket(_histogram(keys & (_HALF - 1) for keys in within), left)
    threshold = (top << 16) | low
    counts = {}
    for name in names:
        below = equal = 0
        for keys in _keys(lookup, name):
            below += int((keys < threshold).sum())
            equal += int((keys == threshold).sum())
        taken = min(equal, left)
        left -= taken
        counts[name] = below + taken
    return counts


def _keys(lookup: Callable[[str], Tensor], name: str) -> Iterator[Tensor]:
    """Yields a layer's scores as int32 of the same order, a piece at a time."""
    for piece in lookup(name).flatten().split(_PIECE):
        piece = piece.float()
        if not piece.isfinite().all():
            raise Problem("its scores are not finite", where=name)
        bits = (piece + 0.0).view(torch.int32)  # -0.0, which equals 0.0, gets its bits
        yield bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _histogram(pieces: Iterable[Tensor]) -> Tensor:
    return sum(torch.bincount(piece.long(), minlength=_HALF).cpu() for piece in pieces)


def _bucket(counts: Tensor, number: int) -> tuple[int, int]:
    """Returns the bucket that holds the `number`-th smallest, and which smallest of that bucket it is."""
    until = counts.cumsum(0)
    at = int(torch.searchsorted(until, number))
    return at, number - int(until[at] - counts[at])
