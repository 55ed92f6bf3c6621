"""LAMP: one threshold for all layers on w_u^2 / (sum of w_v^2 over the weights of its matrix no smaller than w_u).

Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", arXiv:2010.07611. The score rises with |w| inside
a matrix, so only the layers' rates are new; the largest weight of a matrix scores 1, so none is emptied as long as
anything else is left to prune. The denominators are summed from the largest weight down in float64, where the released
code subtracts a running sum from the total and loses the largest weights' scores to cancellation. Ties go by layer
order, where the released code keeps all that equal the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from harness.pruning.allocation import Layer
from harness.pruning.allocation._pooled import smallest
from harness.pruning.patterns._smallest import count


def allocate(layers: Mapping[str, Layer], sparsity: float, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """LAMP: layer-adaptive magnitudes compete over all layers.

    Args:
        layers: The prunable layers by name.
        sparsity: Fraction of zeros over all layers, in [0, 1).
        weights: The dense weights [out, in] by layer name, each looked up three times.

    Returns:
        The sparsity of each layer.

    Raises:
        Problem: A weight is not finite.
    """
    number = count(sum(layer.size for layer in layers.values()), sparsity)
    zeros = smallest(lambda name: lamp(weights[name]), layers, number)
    return {name: zeros[name] / layer.size for name, layer in layers.items()}


def lamp(weight: Tensor) -> Tensor:
    """Returns the LAMP scores of a matrix, largest first, [out * in], float64; a matrix of zeros scores 0."""
    rising = np.sort(weight.flatten().float().abs().cpu().numpy())  # many times quicker than torch's sort on a CPU
    squares = torch.from_numpy(rising).double().square().flip(0)
    return squares / squares.cumsum(0).clamp_min(torch.finfo(torch.float64).tiny)
