"""New method: score = |w|, to begin with.

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

from torch import Tensor

GROUP = "matrix"


def score(weight: Tensor) -> Tensor:
    """New method: the absolute weight, to begin with.

    Args:
        weight: [out, in]. A further argument is a statistic of the inputs, such as `norm`.

    Returns:
        Scores [out, in], float32; the lowest of a row or of the whole matrix (GROUP) are pruned.
    """
    return weight.float().abs()
