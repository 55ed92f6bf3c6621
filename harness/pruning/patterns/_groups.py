"""N of every M consecutive inputs of a row: what the N:M patterns share."""

from __future__ import annotations

from torch import Tensor

from harness.problems import Problem
from harness.pruning.patterns._smallest import smallest


def divides(columns: int, m: int, layer: str | None = None) -> None:
    """Checks that a width divides into groups of m.

    Args:
        columns: The layer's inputs.
        m: Size of a group.
        layer: The layer's name, for the error.

    Raises:
        Problem: It does not; the group sizes up to 64 that it divides into are named.
    """
    if columns % m:
        sizes = ", ".join(str(size) for size in range(2, min(columns, 64) + 1) if columns % size == 0)
        raise Problem(
            f"its {columns} inputs do not divide into groups of {m}",
            where=layer,
            hint=f"at this width M may be {sizes}" if sizes else f"{columns} has no divisor up to 64",
        )


def highest(scores: Tensor, n: int, m: int) -> Tensor:
    """Returns True at the n highest of every m consecutive scores of a row; of equal scores the last columns.

    Args:
        scores: [out, in].
        n: How many stay.
        m: Size of a group.
    """
    divides(scores.shape[1], m)
    return ~smallest(scores.reshape(-1, m), m - n).view(scores.shape)
