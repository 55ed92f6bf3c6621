"""RMI: blocks whose inputs resemble those of the others are redundant and become sparser (LoSA).

t_i = sum of CKA(i, j) over the blocks j != i, over its sum over all i; importance_i = exp(-beta t_i); then minimise
sum_i importance_i s_i over mean s = S and S - d <= s_i <= S + d. CKA is the normalised inner product of two centred
linear kernels.

Huang et al., "Dynamic Low-Rank Sparse Adaptation for Large Language Models", arXiv:2502.14816, released code: the paper
calls the similarity mutual information. The optimum is a corner, half of the blocks at each end; SLSQP, which the code
uses and which is the default here, stops near uniform when the t_i differ by less than a percent or so. beta is 1 with
Wanda there and 100 with SparseGPT. The mean and the objective are over weights, which for blocks of one size is the
code's. The bounds also keep to [0, 1], where the code cuts afterwards and misses the mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.allocation._rates import block_sizes, by_block
from harness.ranges import NonNegative


def allocate(
    layers: Mapping[str, Layer],
    sparsity: float,
    kernels: Mapping[int, Tensor],
    *,
    beta: NonNegative = 1.0,
    spread: NonNegative | None = None,
    exact: bool = False,
) -> dict[str, float]:
    """RMI: a higher sparsity for blocks whose inputs are like those of the others.

    Args:
        layers: The prunable layers by name.
        sparsity: Fraction of zeros over all layers, in [0, 1).
        kernels: Linear kernel [n, n] of each block's inputs over n calibration sequences, by block index.
        beta: Sharpness of the importance; the exact optimum does not depend on it.
        spread: d, how far a rate may be from S; none stands for the code's rule, 0.01 up to S = 0.5, 0.02 up to 0.6,
            0.03 above (where the code keeps what an earlier step used).
        exact: Whether the optimum itself is taken instead of what SLSQP makes of it.

    Returns:
        The sparsity of each layer, one a block.

    Raises:
        Problem: The inputs of a block are the same in all sequences, or the solver fails.
    """
    sizes = block_sizes(layers)
    if spread is None:
        spread = 0.01 if sparsity <= 0.5 else 0.02 if sparsity <= 0.6 else 0.03
    if len(sizes) == 1 or not spread:
        return dict.fromkeys(layers, sparsity)
    shares = redundancy([_unit(block, kernels[block]) for block in sizes])
    importance = torch.exp(-beta * shares).numpy().astype(np.float64)
    weights = np.array(list(sizes.values())) * len(sizes) / sum(sizes.values())
    bounds = max(sparsity - spread, 0.0), min(sparsity + spread, 1.0)
    rates = (_corner if exact else _slsqp)(importance, weights, sparsity, bounds)
    return by_block(layers, dict(zip(sizes, rates, strict=True)), "a smaller spread keeps it there")


def redundancy(units: list[Tensor]) -> Tensor:
    """Returns t [blocks], the share of each block in all similarities between different blocks.

    The sums are of float32 and one by one, as in the released code: where SLSQP stops turns on their last bits.
    """
    stacked = torch.stack(units)
    similarity = (stacked @ stacked.T).fill_diagonal_(0).float()
    sums = sum(similarity.unbind(1))
    return sums / sum(sums)


def _unit(block: int, kernel: Tensor) -> Tensor:
    """Returns the centred kernel [n, n] as a vector of length 1, float64."""
    kernel = kernel.double().cpu()
    centred = (kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()).flatten()
    if not centred.norm() > 1e-9 * kernel.norm():
        raise Problem(
            f"the inputs of block {block} do not differ between its {len(kernel)} calibration sequences",
            hint="RMI compares blocks by how sequences differ; give more samples",
        )
    return centred / centred.norm()


def _slsqp(importance: np.ndarray, weights: np.ndarray, sparsity: float, bounds: tuple[float, float]) -> np.ndarray:
    """Returns what SLSQP makes of it from the start and with the tolerances of the released code."""
    gradient = importance * weights
    result = optimize.minimize(
        lambda rates: sum(rates * gradient),
        x0=np.ones(len(gradient)),
        jac=lambda rates: gradient,
        method="SLSQP",
        bounds=[bounds] * len(gradient),
        constraints={"type": "eq", "fun": lambda rates: np.mean(rates * weights) - sparsity},
    )
    if not result.success:
        raise Problem(f"SLSQP finds no rates: {result.message}", hint="exact=true solves it otherwise")
    return result.x


def _corner(importance: np.ndarray, weights: np.ndarray, sparsity: float, bounds: tuple[float, float]) -> np.ndarray:
    """Returns the exact optimum: the least important blocks at the upper bound as far as the mean allows."""
    low, high = bounds
    rates, left = np.full(len(importance), low), (sparsity - low) * len(importance)
    for block in np.argsort(importance, kind="stable"):
        rates[block] += min(high - low, left / weights[block])
        left -= (rates[block] - low) * weights[block]
    return rates
