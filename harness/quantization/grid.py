"""The grid of a quantised weight: value = scale * (code - zero), codes of a few bits, 0 exactly among the values.

Each row of the matrix, or each group of `group` inputs in a row, has its own scale. Symmetric: scale = 2 max|w| /
(2^bits - 1) and zero = 0. Asymmetric: scale = (max - min) / (2^bits - 1) with 0 always between min and max, and zero
the code nearest to 0's place. These are the grids of GPTQ (arXiv:2210.17323, released code) and of SparseGPT's joint
quantisation, with codes counted from -2^(bits - 1), so that eight bits fit int8.

Different from the released code: a symmetric grid is symmetric also where no weight is negative. Theirs then spreads
max / (2^bits - 1), keeps the zero in the middle, and cuts off every weight above half the largest; with pruned groups
of 32 inputs that happens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.problems import Problem


@dataclass(frozen=True)
class Grid:
    """The grids of a matrix.

    Attributes:
        scale: The step of each grid, above 0, float32 [rows, groups].
        zero: The code that stands for 0, whole numbers in float32 [rows, groups].
        bits: Bits of a code.
        group: Inputs that share a grid.
    """

    scale: Tensor
    zero: Tensor
    bits: int
    group: int

    @property
    def lowest(self) -> int:
        """The lowest code."""
        return -(2 ** (self.bits - 1))

    @property
    def highest(self) -> int:
        """The highest code."""
        return 2 ** (self.bits - 1) - 1

    def at(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scale and zero of these inputs, [rows, n] each."""
        groups = columns.div(self.group, rounding_mode="floor")
        return self.scale[:, groups], self.zero[:, groups]

    def encode(self, weight: Tensor) -> Tensor:
        """Returns the codes of the values nearest to the weights [rows, columns], int8."""
        scale, zero = self._whole(weight)
        return nearest(weight.float(), scale, zero, self.lowest, self.highest).to(torch.int8)

    def decode(self, codes: Tensor) -> Tensor:
        """Returns the values of the codes [rows, columns], float32."""
        scale, zero = self._whole(codes)
        return scale * (codes - zero)

    def zeros(self, codes: Tensor) -> Tensor:
        """Returns the codes of 0 in the shape of `codes`, int8."""
        return self._whole(codes)[1].to(torch.int8)

    def cpu(self) -> Grid:
        """Returns the grid on the CPU."""
        return Grid(self.scale.cpu(), self.zero.cpu(), self.bits, self.group)

    def _whole(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.at(torch.arange(like.shape[1], device=like.device))


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, lowest: int, highest: int) -> Tensor:
    """Returns the codes of the nearest values, as floats; a weight beyond the grid gets its end."""
    return (weight / scale).round_().add_(zero).clamp_(lowest, highest)


def spread(weight: Tensor, bits: int, symmetric: bool = True, group: int | None = None) -> Grid:
    """Spreads a grid over the weights of each row, or of each group in a row.

    Args:
        weight: [rows, columns], any floating dtype; worked on in float32.
        bits: Bits of a code, 2 to 8.
        symmetric: Whether the grid lies evenly about 0.
        group: Inputs that share a grid; None for a whole row.

    Raises:
        Problem: The groups do not divide the inputs.
    """
    rows, columns = weight.shape
    group = group or columns
    if columns % group:
        raise Problem(f"its {columns} inputs do not divide into groups of {group}")
    grouped = weight.float().view(rows, -1, group)
    low, high = grouped.amin(dim=2).clamp(max=0), grouped.amax(dim=2).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    empty = low == high
    low, high = low.masked_fill(empty, -1), high.masked_fill(empty, 1)
    scale = ((high - low) / (2**bits - 1)).clamp(min=torch.finfo(torch.float32).tiny)
    zero = torch.zeros_like(scale) if symmetric else (-low / scale).round_().sub_(2 ** (bits - 1))
    return Grid(scale, zero, bits, group)
