"""A uniform grid of values with 0 among them: q = scale * (clamp(round(w / scale) + zero, 0, 2^bits - 1) - zero).

The grid of SparseGPT's joint quantisation (arXiv:2301.00774, released code): scale = (max - min) / (2^bits - 1) over
the weights of a row or of the matrix, 0 always within; zero = round(-min / scale), or 2^(bits - 1) where symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """The grid of each row: its step, the level that stands for 0, [rows, 1] each, and the highest level."""

    scale: Tensor
    zero: Tensor
    highest: float

    def nearest(self, weight: Tensor) -> Tensor:
        """Returns the nearest values of the grids, [rows, columns]; 0 stays exactly 0."""
        return self.scale * ((weight / self.scale).round().add_(self.zero).clamp_(0, self.highest) - self.zero)


def spread(weight: Tensor, bits: int, symmetric: bool, scale: str) -> Grid:
    """Spreads a grid of 2^bits values over the weights [rows, columns] of each row, or of the "matrix" for all rows."""
    group = weight.float().reshape(1, -1) if scale == "matrix" else weight.float()
    low, high = group.amin(dim=1, keepdim=True).clamp(max=0), group.amax(dim=1, keepdim=True).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        low = torch.where(low < 0, -high, low)
    empty = (low == 0) & (high == 0)
    low, high, highest = low.masked_fill(empty, -1), high.masked_fill(empty, 1), 2.0**bits - 1
    step = (high - low) / highest
    zero = torch.full_like(step, (highest + 1) / 2) if symmetric else (-low / step).round()
    return Grid(*(x.expand(len(weight), 1) for x in (step, zero)), highest)
