"""N:M sparsity: of every M consecutive inputs of a row, the N with the highest scores stay.

N counts the weights that are KEPT (so 16:64 is 75% sparse), where the code of Wanda and OWL counts zeros; the two agree
only for N = M/2. GPUs accelerate 2:4 alone.
"""

from __future__ import annotations

import math

from torch import Tensor

from harness.problems import Problem
from harness.pruning.patterns._smallest import smallest

PERIOD = "m"


def choose(scores: Tensor, sparsity: float, *, n: int = 2, m: int = 4) -> Tensor:
    """N:M: n of every m consecutive inputs stay.

    Args:
        scores: [out, in], larger is kept.
        sparsity: Fraction of zeros; the pattern itself fixes it at 1 - n/m.
        n: How many stay.
        m: Size of a group.

    Returns:
        Bool [out, in], True stays.

    Raises:
        Problem: n > m, a sparsity other than 1 - n/m, or a width that m does not divide.
    """
    if not 0 < n <= m:
        raise Problem(f"{n}:{m} cannot keep {n} of {m} weights")
    if not math.isclose(sparsity, 1 - n / m, abs_tol=1e-9):
        raise Problem(f"{n}:{m} is a sparsity of {1 - n / m:g}, not {sparsity:g}")
    if scores.shape[1] % m:
        raise Problem(f"its {scores.shape[1]} inputs do not divide into groups of {m}")
    return ~smallest(scores.reshape(-1, m), m - n).view(scores.shape)
