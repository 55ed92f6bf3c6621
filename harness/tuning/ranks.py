"""Ranks: how many slices of its low-rank branch each block uses, by its reconstruction error.

    k_i = clip(round(err_i / sum(err) * mean * L), 1, 16)

and then one rank is taken from blocks in increasing error, or given to blocks in decreasing error, until the sum is
mean * L. LoSA, arXiv:2502.14816, released code, `allocate_ranks`. Its correction passes over the blocks once, so a
budget that is further off than one rank a block is not met: of one dominant block among 32 with a mean of 10, 78 ranks
are left of 320. That is `released`; `exact` goes on until the budget is met, or every block is at a bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from harness.problems import Problem

LEAST, MOST = 1, 16


def allocate(errors: Sequence[float], mean: float, budget: Literal["released", "exact"] = "released") -> list[int]:
    """Returns each block's rank, from 1 to 16.

    Args:
        errors: Each block's reconstruction error, none negative, not all 0.
        mean: The mean rank asked for.
        budget: Whether one pass corrects the sum, as in the released code, or as many as it takes.

    Raises:
        Problem: No block has an error: nothing was pruned.
    """
    errors = np.asarray(errors, dtype=np.float64)
    if not errors.sum() > 0:
        raise Problem("no block's outputs differ from the dense model's, so there is no error to share ranks out by")
    wanted = mean * len(errors)
    ranks = np.clip(np.round(errors / errors.sum() * mean * len(errors)), LEAST, MOST).astype(int)
    while left := int(ranks.sum() - wanted):
        step, bound = (-1, LEAST) if left > 0 else (1, MOST)
        free = np.where(ranks > LEAST if left > 0 else ranks < MOST)[0]
        chosen = free[np.argsort(errors[free] * -step)][: abs(left)]
        ranks[chosen] += step
        if budget == "released" or (ranks == bound).all():
            break
    return ranks.tolist()
