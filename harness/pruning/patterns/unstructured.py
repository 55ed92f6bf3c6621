"""Unstructured sparsity: the floor(n * sparsity) lowest scores of each comparison group of n weights go.

The group is each method's own in its paper: Wanda compares within an output row, magnitude within the matrix, SparseGPT
within a slab of 128 columns (the solver shows `choose` one slab at a time, so its "matrix" is the slab).

`as_released` counts as the released scripts do, for those who want their masks bit by bit. Wanda's magnitude and
SparseGPT prune every score up to the one at position int(n * sparsity) of the sorted ones: at least one weight too
many, and more where scores tie, which 16-bit weights do by the hundred. Rows of Wanda lose int(columns * sparsity),
where the product in binary may fall short of a whole number (28 of 100 at 0.29). At a sparsity of 0 the scripts do not
prune.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.patterns._remainders import rounded
from harness.pruning.patterns._smallest import count, smallest


def choose(
    scores: Tensor,
    sparsity: float,
    *,
    group: Literal["paper", "row", "matrix"] = "paper",
    as_released: bool = False,
) -> Tensor:
    """Unstructured: zeros anywhere, an exact count in each comparison group.

    Args:
        scores: [out, in], larger is kept.
        sparsity: Fraction of zeros, in [0, 1).
        group: "row" or "matrix"; "paper" stands for the group of the criterion's or solver's paper, and whoever joins
            the two (`pruning.recipe`) replaces it.
        as_released: Count as the scripts of Wanda and SparseGPT do; see above.

    Returns:
        Bool [out, in], True stays.

    Raises:
        Problem: A sparsity that is no fraction, or that `as_released` cannot look up in the sorted scores.
    """
    if group == "paper":
        raise ValueError("group 'paper' is the criterion's or solver's own; replace it before choosing")
    rows = scores if group == "row" else scores.reshape(1, -1)
    number = count(rows.shape[1], sparsity)
    if not as_released:
        return ~smallest(rows, number).view(scores.shape)
    position = int(rows.shape[1] * sparsity)
    if group == "row":
        return ~smallest(rows, position)
    if not sparsity:
        return torch.ones_like(scores, dtype=torch.bool)
    if position == scores.numel():
        raise Problem(f"the released scripts cannot prune at a sparsity of {sparsity:g}")
    return scores > rows.float().kthvalue(position + 1).values


def fit(
    rates: Mapping[str, float],
    layers: Mapping[str, Layer],
    sparsity: float,
    *,
    group: Literal["paper", "row", "matrix"] = "paper",
    as_released: bool = False,
) -> dict[str, float]:
    """Rounds rates to whole counts in each comparison group, keeping the overall sparsity.

    A solver that chooses a slab at a time rounds every slab down once more, by less than one weight a slab.

    Args:
        rates: Fraction of zeros by layer.
        layers: The layers.
        sparsity: Fraction of zeros over all layers.
        group: "row" or "matrix", as in `choose`.
        as_released: Leave the rates as they are: the released scripts round every layer down.

    Returns:
        Rates by layer, each off by less than one weight in each comparison group.
    """
    if as_released:
        return dict(rates)
    if group == "paper":
        raise ValueError("group 'paper' is the criterion's or solver's own; replace it before fitting")
    units = {}
    for name in rates:
        outputs, inputs = layers[name].shape
        units[name] = (inputs, outputs) if group == "row" else (outputs * inputs, 1)
    return rounded(rates, units, sparsity)
