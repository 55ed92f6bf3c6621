"""Exact counts of smallest scores, ties by position: what every pattern needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.problems import Problem


def count(size: int, sparsity: float) -> int:
    """Returns how many of `size` weights are pruned: floor(size * sparsity), as in the papers' code.

    A product within 1e-9 (relative) of a whole number is that number: 0.29 of 100 is 29, although the product in
    binary is 28.999999999999996.

    Raises:
        Problem: `sparsity` is no fraction, such as an allocation with too wide a spread asks for.
    """
    if not 0 <= sparsity <= 1:
        raise Problem(f"a sparsity of {sparsity:g} is not between 0 and 1")
    product = size * sparsity
    return round(product) if math.isclose(product, round(product), rel_tol=1e-9) else math.floor(product)


def smallest(scores: Tensor, number: int) -> Tensor:
    """Returns True at the `number` smallest scores of each row [rows, n]; of equal scores the first columns.

    A selection and two comparisons instead of a stable sort with its indices: same mask, several times quicker.
    """
    if number == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.topk(number, dim=1, largest=False, sorted=False).values.amax(dim=1, keepdim=True)
    below, ties = scores < threshold, scores == threshold
    left = number - below.sum(dim=1, keepdim=True)
    return below | (ties & (ties.cumsum(dim=1, dtype=torch.int32) <= left))
