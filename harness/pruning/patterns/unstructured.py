"""Unstructured sparsity: the floor(n * sparsity) lowest scores of each comparison group of n weights go.

The group is each method's own in its paper: Wanda compares within an output row, magnitude within the matrix, SparseGPT
within a slab of 128 columns (the solver shows `choose` one slab at a time, so its "matrix" is the slab).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from harness.pruning.patterns._smallest import count, smallest


def choose(scores: Tensor, sparsity: float, *, group: Literal["paper", "row", "matrix"] = "paper") -> Tensor:
    """Unstructured: zeros anywhere, an exact count in each comparison group.

    Args:
        scores: [out, in], larger is kept.
        sparsity: Fraction of zeros, in [0, 1).
        group: "row" or "matrix"; "paper" stands for the group of the criterion's or solver's paper, and whoever joins
            the two (`pruning.recipe`) replaces it.

    Returns:
        Bool [out, in], True stays.
    """
    if group == "paper":
        raise ValueError("group 'paper' is the criterion's or solver's own; replace it before choosing")
    rows = scores if group == "row" else scores.reshape(1, -1)
    return ~smallest(rows, count(rows.shape[1], sparsity)).view(scores.shape)
