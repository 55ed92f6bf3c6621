"""Mixed N:M sparsity: each layer has its own N, that of its rate; N = (1 - rate) * M of every M inputs of a row stay.

What OWL (arXiv:2310.05175), ATP (arXiv:2502.14770) and LoSA (arXiv:2502.14816) call mixed N:8, after DominoSearch (Sun
et al., NeurIPS 2021). N counts the weights that are KEPT; whether the papers' tables count them or the zeros is not
said in what could be read of them, and OWL's code, the only one released, counts zeros.

An allocation gives any fraction. `fit` rounds the rates to multiples of 1/M by one shift t for all layers, the zeros of
a group being floor(M * rate + t), and takes the t that brings the overall sparsity nearest to the one asked for. So the
order of the rates is kept. OWL's code rounds each block by itself (half to even, its rates taken about the mean), and
nothing brings the mean back to the budget; its "special" variant goes further and makes every +1 a +2.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from torch import Tensor

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.patterns._groups import divides, highest
from harness.ranges import Count

PERIOD = "m"


def choose(scores: Tensor, sparsity: float, *, m: Count = 8) -> Tensor:
    """Mixed N:M: (1 - sparsity) * m of every m consecutive inputs stay, another N in each layer.

    Args:
        scores: [out, in], larger is kept.
        sparsity: Fraction of zeros of this layer, a multiple of 1/m.
        m: Size of a group.

    Returns:
        Bool [out, in], True stays.

    Raises:
        Problem: No whole number from 1 to m stays, or m does not divide the width.
    """
    kept = (1 - sparsity) * m
    n = round(kept)
    if abs(kept - n) > 1e-9 or not 0 < n <= m:
        near = [zeros for zeros in range(m) if abs(zeros - sparsity * m) < 1] or [0 if sparsity < 0 else m - 1]
        raise Problem(
            f"a sparsity of {sparsity:g} would keep {kept:g} of every {m}",
            hint="the nearest that can be: " + ", ".join(f"{zeros / m:g}" for zeros in near),
        )
    return highest(scores, n, m)


def fit(rates: Mapping[str, float], layers: Mapping[str, Layer], sparsity: float, *, m: Count = 8) -> dict[str, float]:
    """Rounds rates to multiples of 1/m in their order, the overall sparsity as near as can be.

    Layers of one rate are told apart only where they must be: the largest that fit get the zero more.

    Args:
        rates: Fraction of zeros by layer.
        layers: The layers; their sizes weigh the overall sparsity.
        sparsity: Fraction of zeros over all layers.
        m: Size of a group.

    Returns:
        Rates by layer, from 0 to (m - 1)/m.

    Raises:
        Problem: The overall sparsity is above (m - 1)/m, or m does not divide a layer's width.
    """
    if sparsity > (m - 1) / m:
        raise Problem(f"a sparsity of {sparsity:g} keeps less than one of every {m}", hint=f"at most {(m - 1) / m:g}")
    for name in rates:
        divides(layers[name].shape[1], m, name)
    sizes = {name: layers[name].size for name in rates}
    # The shifts at which the layers get their z-th zeros, in order, up to the overall sparsity.
    steps = [(round(z - m * rate, 9), name) for name, rate in rates.items() for z in range(1, m)]
    steps.sort(key=lambda step: (step[0], -sizes[step[1]]))
    zeros, left = dict.fromkeys(rates, 0), sparsity * m * sum(sizes.values())
    for _, together in itertools.groupby(steps, key=lambda step: step[0]):
        rest = []
        for _, name in together:
            if sizes[name] <= left:
                zeros[name] += 1
                left -= sizes[name]
            else:
                rest.append(name)
        if rest:
            zeros[rest[-1]] += left > sizes[rest[-1]] / 2  # the smallest step beyond, where it is nearer
            break
    return {name: number / m for name, number in zeros.items()}
