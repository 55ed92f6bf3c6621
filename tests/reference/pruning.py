"""Slow, plain versions of the pruning methods, written from the formulas: loops, float64, explicit inverses."""

from __future__ import annotations

import math

import torch


def lowest(scores, number):
    """The `number` lowest of a list of (score, position), earlier positions first among equals."""
    return {position for _, position in sorted(scores, key=lambda pair: (pair[0], pair[1]))[:number]}


def zeros_of(size, sparsity):
    return math.floor(round(size * sparsity, 9))


def unstructured(scores, sparsity, group):
    """Keep [rows, columns] by sorting each group in Python."""
    rows, columns = scores.shape
    keep = torch.ones(rows, columns, dtype=torch.bool)
    groups = [[(r, c) for c in range(columns)] for r in range(rows)]
    if group == "matrix":
        groups = [[position for row in groups for position in row]]
    for members in groups:
        gone = lowest([(float(scores[p]), p) for p in members], zeros_of(len(members), sparsity))
        for position in gone:
            keep[position] = False
    return keep


def nm(scores, n, m):
    """Keep with n of every m consecutive inputs, by sorting each group in Python."""
    rows, columns = scores.shape
    keep = torch.ones(rows, columns, dtype=torch.bool)
    for r in range(rows):
        for start in range(0, columns, m):
            for position in lowest([(float(scores[r, c]), (r, c)) for c in range(start, start + m)], m - n):
                keep[position] = False
    return keep


def wanda(weight, x):
    """Scores from the inputs x [tokens, columns] themselves."""
    rows, columns = weight.shape
    norms = [math.sqrt(sum(float(v) ** 2 for v in x[:, c]) / len(x)) for c in range(columns)]
    return torch.tensor([[abs(float(weight[r, c])) * norms[c] for c in range(columns)] for r in range(rows)])


def damped(gram, damping):
    """Gram matrix in float64, its diagonal raised by a share of the live inputs' mean, dead inputs standing alone."""
    gram = gram.double().clone()
    dead = gram.diagonal() == 0
    mean = gram.diagonal()[~dead].mean()
    gram[dead, dead] = mean
    return gram + damping * mean * torch.eye(len(gram), dtype=torch.float64), dead


def sparsegpt(weight, gram, sparsity, damping=0.01, slab=128, n=None, m=None):
    """Optimal brain surgeon, column by column, inverting the Hessian of the columns that are left every time.

    Pruning weight w_i of a row with columns i, i+1, ... left: W_k -= w_i * inv_k / inv_i, inv the first row of the
    inverse Hessian of those columns. The score of column j is w_j^2 / inv_j, inv_j from the columns left at j.
    """
    hessian, dead = damped(gram, damping)
    weight = weight.double().clone()
    weight[:, dead] = 0
    rows, columns = weight.shape
    inverse = [torch.linalg.inv(hessian[j:, j:])[0] for j in range(columns)]
    keep = torch.ones(rows, columns, dtype=torch.bool)

    def scores(start, stop):
        return [(float(weight[r, c] ** 2 / inverse[c][0]), (r, c)) for r in range(rows) for c in range(start, stop)]

    for i in range(columns):
        if m and i % m == 0:
            for r in range(rows):
                for position in lowest([s for s in scores(i, i + m) if s[1][0] == r], m - n):
                    keep[position] = False
        elif not m and i % slab == 0:
            stop = min(i + slab, columns)
            for position in lowest(scores(i, stop), zeros_of(rows * (stop - i), sparsity)):
                keep[position] = False
        for r in range(rows):
            if not keep[r, i]:
                weight[r, i:] -= weight[r, i].clone() * inverse[i] / inverse[i][0]
                weight[r, i] = 0
    return weight, keep


@torch.no_grad()
def walk(model, blocks, batches, valid, prune):
    """Input rows of every linear, from a whole forward pass of all batches for every block, pruned after each.

    Args:
        valid: batch -> per stack bool [batch, tokens].
        prune: block -> None, changes its weights.

    Returns:
        Layer name -> the inputs [tokens, columns] that count, float64.
    """
    model.eval()
    rows = {}
    for block in blocks:
        for batch in batches:
            masks = valid(batch)

            def record(_, args, name, mask):
                rows.setdefault(name, []).append(args[0].reshape(*mask.shape, -1)[mask].double())

            hooks = [
                linear.module.register_forward_pre_hook(
                    lambda module, args, name=linear.name, mask=masks[linear.reads]: record(module, args, name, mask)
                )
                for linear in block.linears
            ]
            model(**batch, use_cache=False)
            for hook in hooks:
                hook.remove()
        prune(block)
    return {name: torch.cat(parts) for name, parts in rows.items()}
