"""Slow, plain versions of the solvers, written from the formulas: float64, explicit inverses, a weight at a time."""

from __future__ import annotations

import itertools
import math

import torch


def levels(weights, bits, symmetric):
    """All values of the grid spread over a list of weights, lowest first."""
    low, high = min(0.0, *weights), max(0.0, *weights)
    if symmetric:
        high = max(-low, high)
        low = -high if low < 0 else low
    if low == high:
        low, high = -1.0, 1.0
    step = (high - low) / (2**bits - 1)
    zero = 2 ** (bits - 1) if symmetric else round(-low / step)
    return [step * (level - zero) for level in range(2**bits)]


def quantised_sparsegpt(weight, gram, keep, bits, symmetric, per_matrix, damping=0.01):
    """The quantised weights on a given mask: every weight of a column is rounded, or zeroed, and the columns to the
    right move by the optimal brain surgeon's rule, w_k -= (w_i - q_i) * inv_k / inv_i, for the Hessian that is left."""
    rows, columns = weight.shape
    hessian = gram.double() + damping * gram.diagonal().double().mean() * torch.eye(columns, dtype=torch.float64)
    grids = [levels((weight if per_matrix else weight[r]).flatten().tolist(), bits, symmetric) for r in range(rows)]
    work, result = weight.double().clone(), torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(columns):
        inverse = torch.linalg.inv(hessian[i:, i:])[0]
        for r in range(rows):
            value = float(work[r, i])
            q = min(grids[r], key=lambda level, value=value: abs(level - value)) if keep[r, i] else 0.0
            work[r, i:] -= (value - q) * inverse / inverse[0]
            result[r, i] = q
    return result


def least_squares(weight, gram, keep, damping=0.01):
    """Each row's normal equations on its support, solved exactly."""
    gram = gram.double()
    gram = gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solved = torch.zeros(weight.shape, dtype=torch.float64)
    for row, kept in enumerate(keep):
        support = kept.nonzero()[:, 0]
        right = gram[support] @ weight[row].double()
        solved[row, support] = torch.linalg.solve(gram[support][:, support], right)
    return solved


def best_support(weight, gram, number, damping=0.01):
    """The support of `number` weights of one row with the least error, by trying them all, and that error."""
    full = gram.double() + damping * gram.diagonal().double().mean() * torch.eye(len(gram), dtype=torch.float64)
    best = (math.inf, None)
    for support in itertools.combinations(range(len(gram)), number):
        keep = torch.zeros(1, len(gram), dtype=torch.bool)
        keep[0, list(support)] = True
        best = min(best, (error(weight[None], least_squares(weight[None], gram, keep, damping), full), support))
    return best


def error(weight, solved, gram):
    """The squared error of the outputs, sum of (w - w') G (w - w')^T over the rows."""
    gone = weight.double() - solved.double()
    return float(((gone @ gram.double()) * gone).sum())
