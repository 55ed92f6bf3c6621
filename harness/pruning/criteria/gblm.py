"""GBLM: score_ij = |w_ij| * (norm_j + alpha * gradient_norm_ij), Wanda with the gradient's size beside the input's.

Das et al., "Beyond Size: How Gradients Shape Pruning Decisions in Large Language Models", arXiv:2311.04902, the l2
variant, compared within each output row. The paper's norms are sums: the input's over the T tokens of a sequence, the
gradient's over the N sequences, with alpha = 100. Here both are root means, so that neither length nor number of
sequences changes a mask; the paper's alpha is then 100 * sqrt(N / T), which is 25 for its 128 sequences of 2048 tokens.
"""

from __future__ import annotations

from torch import Tensor

from harness.ranges import NonNegative

GROUP = "row"


def score(weight: Tensor, norm: Tensor, gradient_norm: Tensor, *, alpha: NonNegative = 25.0) -> Tensor:
    """GBLM: absolute weight times the sum of its input's norm and its gradient's.

    Args:
        weight: [out, in].
        norm: Root mean square of each input over the calibration tokens, [in], float32.
        gradient_norm: Root mean square of each weight's gradient over the calibration sequences, [out, in], float32.
        alpha: Weight of the gradient; 0 is Wanda.

    Returns:
        Scores [out, in], float32.
    """
    return weight.float().abs() * (norm + alpha * gradient_norm)
