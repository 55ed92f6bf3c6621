"""Linear warm-up, then a straight line to 0: `(total - step) / (total - warmup)`."""

from __future__ import annotations


def factor(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then linear decay to 0.

    Args:
        step: Updates done, from 0 to `total`.
        total: Updates of the whole run; the factor is 0 there.
        warmup: Updates until the peak.
    """
    if step < warmup:
        return step / warmup
    return max(0.0, (total - step) / max(1, total - warmup))
