"""ATP: sparsity rises linearly with depth, s_i = S + beta * (i - mean i) for block i = 0..L-1 in execution order.

Huang et al., "Determining Layer-Wise Sparsity for Large Language Models Through a Theoretical Perspective", ICML 2025,
arXiv:2502.14770, equation 10; beta_max = min(2 S / (L - 1), 2 (1 - S) / (L - 1)) keeps every rate in [0, 1]. The mean
is over weights, (L - 1) / 2 for blocks of one size, so that S is kept in models with unlike blocks too. A negative
beta, which the paper does not have, makes early blocks sparser: worse than uniform by its theory. `atp_search` looks
for the best beta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.allocation._rates import ROUNDING, block_sizes, by_block


def allocate(layers: Mapping[str, Layer], sparsity: float, *, beta: float) -> dict[str, float]:
    """ATP: an arithmetic progression over the blocks with a given common difference.

    Args:
        layers: The prunable layers by name.
        sparsity: Fraction of zeros over all layers, in [0, 1).
        beta: The common difference; positive makes later blocks sparser.

    Returns:
        The sparsity of each layer, one a block.

    Raises:
        Problem: beta takes a rate out of [0, 1]; the valid range is named.
    """
    lowest, highest = limits(layers, sparsity)
    if not lowest * (1 + ROUNDING) <= beta <= highest * (1 + ROUNDING):
        blocks = len(block_sizes(layers))
        raise Problem(
            f"beta={beta:g} takes rates out of [0, 1] at sparsity {sparsity:g} over {blocks} blocks",
            hint=f"it may be from {lowest:.10g} to {highest:.10g}",
        )
    first = sparsity - beta * _centre(layers)
    rates = {block: first + index * beta for index, block in enumerate(block_sizes(layers))}
    return by_block(layers, rates, "a beta closer to 0 keeps it there")


def limits(layers: Mapping[str, Layer], sparsity: float) -> tuple[float, float]:
    """Returns the lowest and the highest beta that keep every rate in [0, 1]; infinite for a single block."""
    before = _centre(layers)
    after = len(block_sizes(layers)) - 1 - before
    if not after:
        return -math.inf, math.inf
    highest = min(sparsity / before, (1 - sparsity) / after)
    return -min(sparsity / after, (1 - sparsity) / before), highest


def _centre(layers: Mapping[str, Layer]) -> float:
    """Returns the mean position of a weight's block; exact, as the sums are of integers."""
    sizes = block_sizes(layers)
    return sum(index * size for index, size in enumerate(sizes.values())) / sum(sizes.values())
