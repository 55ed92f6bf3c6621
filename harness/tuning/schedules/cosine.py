"""Linear warm-up, then half a cosine wave: `floor + (1 - floor) * (1 + cos(pi * p)) / 2`, p = share of the decay done.

Loshchilov and Hutter, arXiv 1608.03983, section 3, without restarts.
"""

from __future__ import annotations

import math

from harness.ranges import Fraction


def factor(step: int, total: int, warmup: int, *, floor: Fraction = 0.0) -> float:
    """Linear warm-up, then half a cosine wave down to `floor`.

    Args:
        step: Updates done, from 0 to `total`.
        total: Updates of the whole run; the factor is `floor` there.
        warmup: Updates until the peak.
        floor: What is left of the peak rate at the end.
    """
    if step < warmup:
        return step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
