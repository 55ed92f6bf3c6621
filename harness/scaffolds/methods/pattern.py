"""New method: the floor(columns * sparsity) lowest scores of each row go, to begin with.

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

from torch import Tensor

from harness.pruning.patterns._smallest import count, smallest


def choose(scores: Tensor, sparsity: float) -> Tensor:
    """New method: the lowest scores of each row go, to begin with.

    Args:
        scores: [out, in], larger is kept.
        sparsity: Fraction of zeros, in [0, 1).

    Returns:
        Bool [out, in], True stays.
    """
    return ~smallest(scores, count(scores.shape[1], sparsity))
