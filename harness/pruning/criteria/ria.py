"""RIA: score_ij = (|w_ij| / sum_i |w_ij| + |w_ij| / sum_j |w_ij|) * norm_j^power, Relative Importance and Activations.

Zhang et al., "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models", ICLR 2024
(openreview.net/forum?id=Tr0lPx9woF): a weight counts by its share of its column's and of its row's absolute sum, so
that no input or output channel is pruned away. Formula, power 1/2 and comparison within the matrix are those of the
released code (its `per_outneuron`, off by default, compares rows); the channel permutation of its N:M results is not
here. `power=0` is its baseline "relative importance".

The norm is a mean over tokens, theirs over sequences: a constant factor. Sums are float32, theirs have the weights'
dtype; a channel of zeros scores 0, theirs divides by zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.ranges import NonNegative

GROUP = "matrix"


def score(weight: Tensor, norm: Tensor, *, power: NonNegative = 0.5) -> Tensor:
    """RIA: a weight's share of its column and of its row, times a power of its input's norm.

    Args:
        weight: [out, in].
        norm: Root mean square of each input over the calibration tokens, [in], float32.
        power: Exponent of the norm.

    Returns:
        Scores [out, in], float32.
    """
    size = weight.float().abs()
    least = torch.finfo(size.dtype).tiny
    shares = size / size.sum(dim=0).clamp(min=least) + size / size.sum(dim=1, keepdim=True).clamp(min=least)
    return shares * norm**power
