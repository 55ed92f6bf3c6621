"""Block sparsity: of the tiles of a matrix, the floor(tiles * sparsity) with the lowest sums of scores go.

Zeros in blocks are what plain matrix kernels can skip: Narang et al., "Block-Sparse Recurrent Neural Networks",
arXiv:1711.02782, where a tile counts by its largest weight; here by the sum of its scores, as the losses they stand for
add up. All tiles of the matrix compete. There is no PERIOD: a solver that works column by column shows a slab at a
time, as for unstructured sparsity; the slab's tiles compete, and its width must divide like the matrix's. Sums are
float64, in which the 32-bit scores of a tile give the same number in any order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.patterns._remainders import rounded
from harness.pruning.patterns._smallest import count, smallest
from harness.ranges import Count


def choose(scores: Tensor, sparsity: float, *, rows: Count = 4, columns: Count = 4) -> Tensor:
    """Block: whole tiles go, those with the lowest sums of scores in the matrix.

    Args:
        scores: [out, in], larger is kept.
        sparsity: Fraction of tiles that go.
        rows: Outputs of a tile.
        columns: Inputs of a tile.

    Returns:
        Bool [out, in], True stays.

    Raises:
        Problem: The matrix does not divide into such tiles.
    """
    down, across = _tiles(tuple(scores.shape), rows, columns)
    sums = scores.reshape(down, rows, across, columns).sum(dim=(1, 3), dtype=torch.float64)
    keep = ~smallest(sums.view(1, -1), count(down * across, sparsity)).view(down, 1, across, 1)
    return keep.expand(down, rows, across, columns).reshape(scores.shape)


def fit(
    rates: Mapping[str, float], layers: Mapping[str, Layer], sparsity: float, *, rows: Count = 4, columns: Count = 4
) -> dict[str, float]:
    """Rounds rates to whole tiles, keeping the overall sparsity.

    Args:
        rates: Fraction of zeros by layer.
        layers: The layers.
        sparsity: Fraction of zeros over all layers.
        rows: Outputs of a tile.
        columns: Inputs of a tile.

    Returns:
        Rates by layer, each off by less than one tile.

    Raises:
        Problem: A layer does not divide into such tiles; it is named.
    """
    tiles = {name: _tiles(layers[name].shape, rows, columns, name) for name in rates}
    return rounded(rates, {name: (down * across, rows * columns) for name, (down, across) in tiles.items()}, sparsity)


def _tiles(shape: tuple[int, int], rows: int, columns: int, layer: str | None = None) -> tuple[int, int]:
    """Returns how many tiles a matrix has, down and across."""
    if shape[0] % rows or shape[1] % columns:
        what = f"a matrix of {shape[0]} x {shape[1]} does not divide into tiles of {rows} x {columns}"
        raise Problem(what, where=layer)
    return shape[0] // rows, shape[1] // columns
