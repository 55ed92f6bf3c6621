"""Slow, plain versions of the patterns that the file `pruning` lacks, and of rounding rates: loops and fractions."""

from __future__ import annotations

from fractions import Fraction

import torch


def as_released(scores, sparsity):
    """Keep [out, in] as in Wanda's magnitude script: all scores above the one at position int(n * sparsity)."""
    values = sorted(float(v) for v in scores.flatten())
    threshold = values[int(len(values) * sparsity)]
    return torch.tensor([[float(v) > threshold for v in row] for row in scores])


def block(scores, number, rows, columns):
    """Keep [out, in] without the `number` lowest tiles, earlier tiles first among equals."""
    keep = torch.ones(scores.shape, dtype=torch.bool)
    tiles = []
    for r in range(0, scores.shape[0], rows):
        for c in range(0, scores.shape[1], columns):
            tiles.append((sum(float(v) for v in scores[r : r + rows, c : c + columns].flatten()), r, c))
    for _, r, c in sorted(tiles)[:number]:
        keep[r : r + rows, c : c + columns] = False
    return keep


def largest_remainders(rates, units, zeros):
    """Counts by layer: whole units, then one more by the largest remainder while `zeros` is not exceeded.

    Args:
        rates: Exact fractions by layer.
        units: (units, weights a unit) by layer.
        zeros: How many weights may be zero.
    """
    counts = {name: (rate * units[name][0]).__floor__() for name, rate in rates.items()}
    for _, name in sorted((counts[name] - rate * units[name][0], order) for order, (name, rate) in _numbered(rates)):
        name = list(rates)[name]
        spent = sum(counts[other] * units[other][1] for other in rates)
        if rates[name] * units[name][0] != counts[name] and spent + units[name][1] <= zeros:
            counts[name] += 1
    return counts


def _numbered(rates):
    return list(enumerate(rates.items()))


def nearest_shift(rates, sizes, sparsity, m):
    """How near to the overall sparsity the best single shift t comes, zeros of a group being floor(m * rate + t)."""
    total = sum(sizes.values())
    shifts = {Fraction(z) - m * rate for rate in rates.values() for z in range(m + 1)}
    errors = []
    for t in shifts:
        zeros = {name: min(max((m * rate + t).__floor__(), 0), m - 1) for name, rate in rates.items()}
        errors.append(abs(sum(Fraction(zeros[name] * sizes[name], m) for name in rates) / total - sparsity))
    return min(errors)
