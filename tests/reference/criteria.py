"""Slow, plain versions of the criteria, written from the papers' formulas: loops in Python's own numbers."""

from __future__ import annotations

import torch


def each(weight, formula):
    """Scores [out, in] of a formula of row and column."""
    rows, columns = weight.shape
    return torch.tensor([[formula(r, c) for c in range(columns)] for r in range(rows)])


def gradient(weight, gradients):
    return each(weight, lambda r, c: abs(float(weight[r, c]) * float(gradients[r, c])))


def ria(weight, norm, power):
    size = [[abs(float(w)) for w in row] for row in weight]
    across = [sum(row) for row in size]
    down = [sum(row[c] for row in size) for c in range(weight.shape[1])]

    def formula(r, c):
        share = sum(size[r][c] / whole for whole in (across[r], down[c]) if whole)
        return share * float(norm[c]) ** power

    return each(weight, formula)


def gblm(weight, x, gradients, alpha):
    """From the inputs [sequences, tokens, columns] and a gradient a sequence, with the paper's sums.

    Divided by the root of the tokens, the constant in which the harness's norms differ.
    """
    sequences, tokens, _ = x.shape

    def formula(r, c):
        norm = (sum(float(v) ** 2 for v in x[:, :, c].flatten()) / sequences) ** 0.5
        steep = sum(float(g[r, c]) ** 2 for g in gradients) ** 0.5
        return abs(float(weight[r, c])) * (norm + alpha * steep) / tokens**0.5

    return each(weight, formula)


def pruner_zero(weight, gradients):
    """From a gradient a sequence."""
    steep = each(weight, lambda r, c: sum(float(g[r, c]) ** 2 for g in gradients) ** 0.5)
    low, high = float(steep.min()), float(steep.max())
    return each(weight, lambda r, c: float(weight[r, c]) ** 2 * (float(steep[r, c]) - low) / (high - low))


def sparsegpt(weight, gram, damping):
    """w_j^2 over the first diagonal element of the inverse Hessian of columns j, j + 1, ...; dead inputs score 0."""
    gram = gram.double().clone()
    dead = [float(gram[c, c]) == 0 for c in range(len(gram))]
    live = [float(gram[c, c]) for c in range(len(gram)) if not dead[c]]
    mean = sum(live) / len(live)
    for c in range(len(gram)):
        gram[c, c] += damping * mean + (mean if dead[c] else 0)
    variance = [float(torch.linalg.inv(gram[c:, c:])[0, 0]) for c in range(len(gram))]
    return each(weight, lambda r, c: 0.0 if dead[c] else float(weight[r, c]) ** 2 / variance[c])
