"""Chain: a walk at a lower sparsity first, as Sparse Llama (arXiv:2405.03594) goes over 50% to 70%."""

from __future__ import annotations

from harness.problems import Problem
from harness.ranges import Sparsity


def targets(sparsity: float, *, through: Sparsity = 0.5) -> list[float]:
    """Chain: two walks, the first at `through`.

    Args:
        sparsity: The last target.
        through: The sparsity on the way.

    Raises:
        Problem: `through` is no stop on the way.
    """
    if not through < sparsity:
        raise Problem(f"a chain through {through:g} cannot end at {sparsity:g}", hint="go through a lower sparsity")
    return [through, sparsity]
