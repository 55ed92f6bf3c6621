"""Wanda: score_ij = |w_ij| * sqrt(mean over tokens of x_j^2), compared within each output row.

Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", arXiv:2306.11695, section 3. The norm
here is a mean over the tokens that count, where the authors' code sums over the tokens of a sequence and averages over
sequences: a constant factor for a matrix, which no comparison within it sees. Padding is left out.
"""

from __future__ import annotations

from torch import Tensor

GROUP = "row"


def score(weight: Tensor, norm: Tensor) -> Tensor:
    """Wanda: absolute weight times the norm of its input.

    Args:
        weight: [out, in].
        norm: Root mean square of each input over the calibration tokens, [in], float32.

    Returns:
        Scores [out, in], float32.
    """
    return weight.abs().float().mul_(norm)
