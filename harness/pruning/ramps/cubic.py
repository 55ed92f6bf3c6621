"""Cubic ramp: s_t = S - (S - s_0) (1 - t/T)^3 for t = 1..T, many weights early and few late.

Zhu & Gupta, "To prune, or not to prune", arXiv:1710.01878, section 3; LoSA (arXiv:2502.14816, released code) uses it
with s_0 = 0 and T = 5.
"""

from __future__ import annotations

from harness.problems import Problem
from harness.ranges import Count, Sparsity


def targets(sparsity: float, *, steps: Count = 5, start: Sparsity = 0.0) -> list[float]:
    """Cubic: several walks, each closer to the sparsity asked for.

    Args:
        sparsity: The last target.
        steps: T, how many walks.
        start: s_0, the sparsity that the ramp begins above.

    Raises:
        Problem: It begins above its end.
    """
    if start > sparsity:
        raise Problem(f"a ramp from {start:g} cannot end at {sparsity:g}")
    return [sparsity - (sparsity - start) * (1 - step / steps) ** 3 for step in range(1, steps + 1)]
