"""A layer's mask in a bit a weight, on the device that it is used on; rows of it become bools where they are looked at.

    mask[rows] -> BoolTensor [rows, in]      mask[rows] = BoolTensor      (rows is a slice; `mask[:]` is the whole)

A bool takes a byte: 7 GB for 7 billion weights, which training holds beside them. A row's first weight lies in the
lowest bit of its first byte, and every row begins a byte. A table turns a byte into eight numbers of the type that is
wanted: on a CPU as fast as to turn bools into such numbers, which whoever multiplies with a mask does in any case.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import BoolTensor, Tensor
from torch.nn.functional import pad


class Bits:
    """A mask [out, in], True stays; what is put into it goes to the tensor that it was made of.

    Args:
        packed: uint8 [out, ceil(in / 8)], from `pack`.
        columns: in.
    """

    def __init__(self, packed: Tensor, columns: int) -> None:
        self._packed = packed
        self.shape = torch.Size((len(packed), columns))
        self.device = packed.device

    @classmethod
    def of(cls, keep: BoolTensor) -> Bits:
        """Returns the mask [out, in] in bits of its own."""
        return cls(pack(keep), keep.shape[1])

    def __getitem__(self, rows: slice) -> BoolTensor:
        return self.numbers(rows, torch.bool)

    def __setitem__(self, rows: slice, keep: BoolTensor) -> None:
        self._packed[rows] = pack(keep)

    def at(self, positions: Tensor) -> BoolTensor:
        """Returns the mask at flat positions of the matrix, int64 [n]."""
        rows, columns = positions // self.shape[1], positions % self.shape[1]
        return (self._packed[rows, columns // 8] >> columns % 8 & 1).bool()

    def numbers(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Returns rows of the mask as 1 and 0 of a type, [rows, in]."""
        packed = self._packed[rows]
        found = _table(self.device, dtype).index_select(0, packed.reshape(-1).int())
        return found.view(len(packed), 8 * packed.shape[1])[:, : self.shape[1]].contiguous()


def pack(keep: BoolTensor) -> Tensor:
    """Returns a mask [out, in] as uint8 [out, ceil(in / 8)] on its device."""
    places = torch.arange(8, dtype=torch.uint8, device=keep.device)
    eights = pad(keep.view(torch.uint8), (0, -keep.shape[1] % 8)).unflatten(1, (-1, 8))
    return (eights << places).sum(-1, dtype=torch.uint8)


@cache
def _table(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns the eight numbers of every byte, [256, 8]."""
    return (torch.arange(256)[:, None] >> torch.arange(8) & 1).to(device, dtype)
