"""New method: s_t = S t / T for t = 1..T, to begin with.

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

from harness.ranges import Count


def targets(sparsity: float, *, steps: Count = 2) -> list[float]:
    """New method: equal steps to the sparsity asked for, to begin with.

    Args:
        sparsity: The last target.
        steps: T, how many walks.
    """
    return [sparsity * step / steps for step in range(1, steps + 1)]
