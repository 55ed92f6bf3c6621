"""AlphaPruning: blocks whose spectra have heavier tails, that is, are trained better, stay denser.

s_l = c * q_l, q_l = 1 - epsilon + 2 * epsilon * (a_l - min a) / (max a - min a), with c such that the mean over weights
is S; a_l is the mean over the layers of a block of the power law's exponent alpha of their spectra.

Lu et al., arXiv:2410.10912, and released code, whose scripts tune epsilon for each model and pruner (0.2 for Wanda on
LLaMA-7B, up to 0.5 for magnitude). No data is needed. Matrices with fewer than a hundred singular values give noisy
exponents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.allocation._rates import checked
from harness.pruning.allocation._tail import alpha
from harness.ranges import Fraction


def allocate(
    layers: Mapping[str, Layer],
    sparsity: float,
    weights: Mapping[str, Tensor],
    *,
    epsilon: Fraction = 0.3,
    xmin: Literal["peak", "mid"] = "peak",
    per: Literal["block", "layer"] = "block",
) -> dict[str, float]:
    """AlphaPruning: a lower sparsity for blocks whose weights have heavier-tailed spectra.

    Args:
        layers: The prunable layers by name.
        sparsity: Fraction of zeros over all layers, in [0, 1).
        weights: The dense weights [out, in] by layer name, each looked up once.
        epsilon: How far the rates spread, before they are scaled to S: from 1 - epsilon to 1 + epsilon.
        xmin: Where a spectrum's tail begins: "peak", the best fit up to its peak, or "mid", its median.
        per: Whether the layers of a block share the mean of their exponents and so one rate.

    Returns:
        The sparsity of each layer; all S if all exponents are equal.

    Raises:
        Problem: A spectrum has no tail to fit, or a rate is above 1; the layer is named.
    """
    exponents = {name: _named(name, weights[name], xmin) for name in layers}
    if per == "block":
        exponents = _means(layers, exponents)
    low, high = min(exponents.values()), max(exponents.values())
    places = {name: (each - low) / (high - low) if high > low else 0.5 for name, each in exponents.items()}
    shares = {name: 1 - epsilon + 2 * epsilon * place for name, place in places.items()}
    total = sum(layer.size for layer in layers.values())
    scale = sparsity * total / sum(layers[name].size * share for name, share in shares.items())
    middle = sum(layers[name].size * place for name, place in places.items()) / total
    widest = (1 - sparsity) / max(1 + sparsity - 2 * middle, 1 - sparsity)
    return checked(
        {name: scale * share for name, share in shares.items()}, f"an epsilon of at most {widest:.4g} keeps it there"
    )


def _named(name: str, weight: Tensor, xmin: str) -> float:
    try:
        return alpha(weight, xmin)
    except Problem as problem:
        raise Problem(problem.what, where=name, hint="prune with another allocation, or leave this layer out") from None


def _means(layers: Mapping[str, Layer], exponents: Mapping[str, float]) -> dict[str, float]:
    """Returns the mean exponent of its block for every layer."""
    members: dict[int, list[float]] = {}
    for name, layer in layers.items():
        members.setdefault(layer.block, []).append(exponents[name])
    return {name: sum(members[layer.block]) / len(members[layer.block]) for name, layer in layers.items()}
