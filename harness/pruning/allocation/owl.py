"""OWL: blocks with more outliers stay denser.

D_i = 100 * share of Wanda scores |W| * norm of block i above M times their mean over the block;
s_i = S - (r_i - mean r), r_i = 2 * lambda * (D_i - min D) / (max D - min D).

Yin et al., arXiv:2310.05175, and released code. The rates spread over 2 * lambda exactly and their mean is S, so that
one may lie outside the [S - lambda, S + lambda] of the paper. The mean is over weights, which for blocks of one size is
the released code's. M is 5, as in the unstructured commands of its README (its code's default is 3). The scores are
Wanda's whatever prunes afterwards, on the model as a turn of the ramp finds it. A rate of 0 or less becomes 0.01, as
there, and the mean is then above S.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.allocation._rates import block_sizes, by_block
from harness.pruning.criteria.wanda import score
from harness.ranges import NonNegative, Positive

LEAST = 0.01
"""What the released code makes of a rate of 0 or less."""


def allocate(
    layers: Mapping[str, Layer],
    sparsity: float,
    weights: Mapping[str, Tensor],
    norms: Mapping[str, Tensor],
    *,
    width: NonNegative = 0.08,
    outlier: Positive = 5.0,
) -> dict[str, float]:
    """OWL: a lower sparsity for blocks with more outlying Wanda scores.

    Args:
        layers: The prunable layers by name.
        sparsity: Fraction of zeros over all layers, in [0, 1).
        weights: The weights [out, in] by layer name, each looked up twice.
        norms: Root mean square of each layer's inputs [in] by layer name, no block pruned yet in this turn.
        width: lambda; the rates of the blocks lie up to 2 * lambda apart.
        outlier: M; a score is an outlier above M times the mean score of its block.

    Returns:
        The sparsity of each layer, one a block; all S if all blocks have the same share of outliers.

    Raises:
        Problem: No block has an outlier, or a rate is above 1.
    """
    if not sparsity:  # as in the released code, which would else raise rates to 0.01
        return dict.fromkeys(layers, 0.0)
    sizes = block_sizes(layers)
    shares = outliers(layers, weights, norms, outlier)
    low, high = min(shares.values()), max(shares.values())
    if not high:
        raise Problem(f"no score is above {outlier:g} times the mean of its block", hint="a smaller outlier finds some")
    raised = {block: 2 * width * (shares[block] - low) / ((high - low) or 1.0) for block in sizes}
    mean = sum(raised[block] * size for block, size in sizes.items()) / sum(sizes.values())
    rates = {block: sparsity - (raised[block] - mean) for block in sizes}
    rates = {block: rate if rate > 0 else LEAST for block, rate in rates.items()}
    return by_block(layers, rates, "a smaller width keeps the rates closer together")


@torch.no_grad()
def outliers(
    layers: Mapping[str, Layer], weights: Mapping[str, Tensor], norms: Mapping[str, Tensor], outlier: float
) -> dict[int, float]:
    """Returns the percentage of outlying scores in each block."""
    sizes = block_sizes(layers)
    sums, counts = dict.fromkeys(sizes, 0.0), dict.fromkeys(sizes, 0)
    for name, layer in layers.items():
        sums[layer.block] += float(score(weights[name], norms[name]).sum(dtype=torch.float64))
    for name, layer in layers.items():
        threshold = outlier * sums[layer.block] / sizes[layer.block]
        counts[layer.block] += int((score(weights[name], norms[name]) > threshold).sum())
    return {block: 100 * counts[block] / size for block, size in sizes.items()}
