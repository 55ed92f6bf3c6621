"""Linear warm-up, then the peak rate: `min(1, step / warmup)`."""

from __future__ import annotations


def factor(step: int, total: int, warmup: int) -> float:
    """Linear warm-up, then the peak rate to the end.

    Args:
        step: Updates done, from 0 to `total`.
        total: Updates of the whole run.
        warmup: Updates until the peak.
    """
    return step / warmup if step < warmup else 1.0
