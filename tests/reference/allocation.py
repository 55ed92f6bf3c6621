"""Slow, plain versions of the allocations, written from the formulas: lists, sorting, numpy in float64."""

from __future__ import annotations

import math

import numpy as np


def erdos_renyi(shapes, kept):
    """Densities of layers of these shapes that keep `kept` weights in all, found by bisection of the common factor."""
    low, high = 0.0, max(rows * columns for rows, columns in shapes)

    def densities(factor):
        return [min(1.0, factor * (rows + columns) / (rows * columns)) for rows, columns in shapes]

    for _ in range(200):
        middle = (low + high) / 2
        total = sum(d * rows * columns for d, (rows, columns) in zip(densities(middle), shapes, strict=True))
        low, high = (middle, high) if total < kept else (low, middle)
    return densities(high)


def pooled(scores, number):
    """How many of the `number` smallest of all scores each list holds; equal scores in the order of the lists."""
    everything = sorted((score, layer) for layer, each in enumerate(scores) for score in each)
    chosen = [layer for _, layer in everything[:number]]
    return [chosen.count(layer) for layer in range(len(scores))]


def lamp(weights):
    """w^2 over the sum of all squares from it upwards in the sorted order."""
    found = []
    for w in weights:
        rest = sorted((v * v for v in w), reverse=True)
        found.append([square / math.fsum(rest[: at + 1]) for at, square in enumerate(rest)])
    return found


def owl(scores_of_blocks, sparsity, width, outlier):
    """One rate a block of equal size from the scores of each block."""
    shares = []
    for scores in scores_of_blocks:
        mean = math.fsum(scores) / len(scores)
        shares.append(100 * sum(score > outlier * mean for score in scores) / len(scores))
    low, high = min(shares), max(shares)
    raised = [(share - low) / (high - low) * 2 * width for share in shares]
    mean = sum(raised) / len(raised)
    kept = [each - mean + (1 - sparsity) for each in raised]
    return [1 - each if 1 - each > 0 else 0.01 for each in kept]


def hill(eigenvalues, xmin_at):
    """The exponent of the power law from the eigenvalue at that place of the sorted list on."""
    tail = sorted(eigenvalues)[xmin_at:]
    return 1 + len(tail) / math.fsum(math.log(x / tail[0]) for x in tail)


def peak(eigenvalues):
    """The exponent with the smallest Kolmogorov-Smirnov distance among those that begin before 1.5 times the peak."""
    ordered = sorted(eigenvalues)
    counts, edges = np.histogram(np.log10(ordered), 100)
    top = 10 ** edges[int(np.argmax(counts))]
    fits = []
    for at, xmin in enumerate(ordered[:-1]):
        if xmin > 1.5 * top:
            break
        if xmin < math.log10(0.95 * top):
            continue
        exponent, tail = hill(ordered, at), ordered[at:]
        apart = max(abs(1 - (x / xmin) ** (1 - exponent) - k / len(tail)) for k, x in enumerate(tail))
        fits.append((apart, at, exponent))
    return min(fits)[2]


def alphapruning(exponents, sizes, sparsity, epsilon):
    """A rate for every layer from its exponent and size."""
    low, high = min(exponents), max(exponents)
    shares = [1 - epsilon + 2 * epsilon * (exponent - low) / (high - low) for exponent in exponents]
    scale = sparsity * sum(sizes) / sum(size * share for size, share in zip(sizes, shares, strict=True))
    return [scale * share for share in shares]


def cka(kernel, other):
    """Similarity of two kernels [n, n] by explicit centring with H = I - 1/n."""
    n = len(kernel)
    centring = np.eye(n) - np.ones((n, n)) / n
    a, b = (centring @ np.asarray(each, dtype=np.float64) @ centring for each in (kernel, other))
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def redundancies(kernels):
    """Each block's share in the similarities between different blocks."""
    blocks = range(len(kernels))
    sums = [sum(cka(kernels[i], kernels[j]) for j in blocks if j != i) for i in blocks]
    return [each / sum(sums) for each in sums]
