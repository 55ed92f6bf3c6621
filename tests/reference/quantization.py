"""Slow, plain versions of quantisation, written from the formulas: float64, explicit inverses, a weight at a time."""

from __future__ import annotations

import torch


def levels(weights, bits, symmetric):
    """All values of the grid over a list of weights by their codes."""
    low, high = min(0.0, *weights), max(0.0, *weights)
    if symmetric:
        high = max(-low, high)
        low = -high
    if low == high:
        low, high = -1.0, 1.0
    step = (high - low) / (2**bits - 1)
    half = 2 ** (bits - 1)
    zero = 0 if symmetric else round(-low / step) - half
    return {code: step * (code - zero) for code in range(-half, half)}


def nearest(value, grid):
    """The code of the nearest value, of two that are equally near the even one: on a symmetric grid the lowest weight
    lies between two."""
    step = abs(grid[0] - grid[-1])
    return min(grid, key=lambda code: (round(abs(grid[code] - value) / step, 5), code % 2))


def grids(weight, bits, symmetric, group):
    """By row and column, the grid of that weight."""
    rows, columns = weight.shape
    group = group or columns
    found = {}
    for r in range(rows):
        for first in range(0, columns, group):
            one = levels(weight[r, first : first + group].double().tolist(), bits, symmetric)
            found |= {(r, c): one for c in range(first, first + group)}
    return found


def rtn(weight, keep, bits, symmetric=True, group=None):
    """The nearest value of each kept weight, float64 [out, in]."""
    grid = grids(weight, bits, symmetric, group)
    result = torch.zeros(weight.shape, dtype=torch.float64)
    for (r, c), values in grid.items():
        if keep[r, c]:
            result[r, c] = values[nearest(float(weight[r, c]), values)]
    return result


def gptq(weight, keep, gram, bits, symmetric=True, group=None, turns=None, damping=0.01):
    """The optimal brain surgeon's rule, inverting anew before every column what is left of the Hessian: w_k -= (w_i -
    q_i) inv_k / inv_i, where q_i is 0 for a pruned weight."""
    rows, columns = weight.shape
    hessian = gram.double() + damping * gram.diagonal().double().mean() * torch.eye(columns, dtype=torch.float64)
    grid = grids(weight, bits, symmetric, group)
    work, result = weight.double().clone(), torch.zeros(rows, columns, dtype=torch.float64)
    left = list(range(columns)) if turns is None else list(turns)
    while left:
        i, inverse = left[0], torch.linalg.inv(hessian[left][:, left])[0]
        for r in range(rows):
            value = float(work[r, i])
            result[r, i] = grid[r, i][nearest(value, grid[r, i])] if keep[r, i] else 0.0
            work[r, left] -= (value - result[r, i]) * inverse / inverse[0]
        left = left[1:]
    return result


def error(weight, rounded, gram):
    """The squared error of the outputs, sum of (w - w') G (w - w')^T over the rows."""
    gone = weight.double() - rounded.double()
    return float(((gone @ gram.double()) * gone).sum())
