"""Magnitude pruning: score = |w|.

The oldest baseline, as in Han et al., arXiv:1506.02626. The released scripts of Wanda, OWL and DSnoT compare within the
whole matrix and prune `|w| <= threshold`, which takes one weight too many, and more where 16-bit weights tie; here the
count is exact unless `unstructured:as_released=true` asks for theirs.
"""

from __future__ import annotations

from torch import Tensor

GROUP = "matrix"


def score(weight: Tensor) -> Tensor:
    """Magnitude: the absolute weight; needs no calibration.

    Args:
        weight: [out, in].

    Returns:
        Scores [out, in], float32.
    """
    return weight.float().abs()
