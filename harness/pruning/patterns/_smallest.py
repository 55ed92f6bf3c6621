"""Exact counts of smallest scores, ties by position: what every pattern needs."""

from __future__ import annotations

import math

import numpy as np
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
    """Returns True at the `number` smallest scores of each row [rows, n], or at False; of equal ones the first columns.

    A selection and a comparison instead of a stable sort with its indices: same mask, many times quicker.
    """
    if number == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = _at(scores, number)
    found = scores <= threshold
    if int(found.count_nonzero()) == number * len(scores):  # no score ties with the threshold's across the border
        return found
    below, ties = scores < threshold, scores == threshold
    left = number - below.sum(dim=1, keepdim=True)
    return below | (ties & (ties.cumsum(dim=1, dtype=torch.int32) <= left))


def _at(scores: Tensor, number: int) -> Tensor:
    """Returns the `number`-th smallest score of each row, [rows, 1]; on the CPU by numpy's vectorised selection.

    Of a mask, whose scores are False and True, it is False where there are as many: counting is enough.
    """
    if scores.dtype == torch.bool:
        return scores.shape[1] - scores.sum(dim=1, keepdim=True, dtype=torch.int32) < number
    if scores.device.type == "cpu" and scores.dtype in (torch.float32, torch.float64):
        found = np.partition(scores.detach().numpy(), number - 1, axis=1)[:, number - 1 : number]
        return torch.from_numpy(found.copy())
    return scores.topk(number, dim=1, largest=False, sorted=False).values.amax(dim=1, keepdim=True)
