"""Slow, plain versions of the refiners, written from the formulas: a row at a time, Python lists, full sorts."""

from __future__ import annotations

import math


def sign(value):
    return (value > 0) - (value < 0)


def dsnot_row(weight, keep, scores, norm, total, variance, period, cycles, threshold, power, sign_rule):
    """One row's mask and its expected errors, before the first swap and after every one; all arguments are lists."""
    columns = range(len(weight))
    c = [weight[j] * total[j] for j in columns]
    pruned = [j for j in columns if not keep[j] and c[j] != 0]
    gain = {
        j: c[j] / variance[j] ** power if variance[j] or not power else math.copysign(math.inf, c[j]) for j in pruned
    }
    wanda = [abs(weight[j]) * norm[j] for j in columns]
    left = {j for j in columns if keep[j]}
    keep, errors = list(keep), [sum(c[j] for j in columns if not keep[j])]
    for _ in range(cycles):
        e = errors[-1]
        grow = [j for j in pruned if sign(c[j]) == sign(e)]
        if abs(e) <= threshold or not grow:
            break
        # Of equal gains the first column from the low end, the last from the high end, as in one ascending sort.
        g = max(grow, key=lambda j: (gain[j], j)) if e > 0 else min(grow, key=lambda j: (gain[j], j))
        if period:
            group = [j for j in left if j // period == g // period]
            order = scores
        else:
            group = [j for j in left if sign(c[j]) == -sign(e)]
            order = wanda
        if not group:
            break
        q = min(group, key=lambda j: (order[j], j))
        after = e + c[q] - c[g]
        if (sign_rule or period) and sign(after) != sign(errors[0]):
            break
        keep[g], keep[q] = True, False
        pruned.remove(g)
        left.remove(q)
        errors.append(after)
    return keep, errors
