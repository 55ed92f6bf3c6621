"""Gradient pruning: score_ij = |w_ij * g_ij|, how much the loss changes to first order when a weight becomes zero.

SNIP's connection sensitivity (Lee et al., arXiv:1810.02340, equation 4) on a trained model; the first-order Taylor
criterion of Molchanov et al., arXiv:1906.10771, for single weights. g is the mean gradient over the calibration batches
in the dense model. SNIP ranks the weights of all layers together: that is the allocation `global_threshold`.
"""

from __future__ import annotations

from torch import Tensor

GROUP = "matrix"


def score(weight: Tensor, gradient: Tensor) -> Tensor:
    """Gradient: absolute weight times gradient, the first-order change of the loss.

    Args:
        weight: [out, in].
        gradient: Mean gradient of the dense model's loss, [out, in], float32.

    Returns:
        Scores [out, in], float32.
    """
    return (weight.float() * gradient).abs()
