"""Bitmask: one bit a weight says where the others than zero are, and these follow each other, row by row.

Bytes per weight: 1/8 + density x (bytes of a value); the least of all formats up to about 90% sparsity, where `index`
begins to need less. AVX-512 puts a run of values in its places with one instruction (`vpexpand`), which takes the bits
as they are stored; AVX2 looks each byte's permutation up in a table.

Tensors: `mask`, int64 [out, words], 64 columns a word, the first in the lowest bit; `values` [stored + 64], the last 64
zeros so that a vector may be read anywhere; `rows`, int64 [out + 1], where each row's values begin; with int8 `sums`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from harness.inference import values

TENSORS = {"mask": "int64", "values": "codes", "rows": "int64"}
INTEGER = {"sums": "int32"}
GROUPED = True
SLACK = 64


def pack(codes: Tensor, groups: int) -> dict[str, Tensor]:
    """A bit a weight and the values that are not zero.

    Args:
        codes: [out, in].
        groups: How many groups of columns have a scale of their own.
    """
    keep = codes != 0
    rows = torch.zeros(len(codes) + 1, dtype=torch.int64)
    torch.cumsum(keep.sum(1), 0, out=rows[1:])
    padded = nn.functional.pad(keep, (0, -codes.shape[1] % values.WORD)).numpy()
    bits = torch.from_numpy(np.packbits(padded, axis=1, bitorder="little"))
    stored = torch.cat([codes[keep], codes.new_zeros(SLACK)])
    mask = bits.view(torch.int64) if bits.numel() else torch.zeros(len(codes), bits.shape[1] // 8, dtype=torch.int64)
    tensors = {"mask": mask, "values": stored, "rows": rows}
    return tensors if codes.is_floating_point() else {**tensors, "sums": values.sums(codes, groups)}


def unpack(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """Returns the codes [out, in]."""
    mask = tensors["mask"].contiguous()
    codes = tensors["values"].new_zeros(shape)
    if mask.numel():
        keep = np.unpackbits(mask.view(torch.uint8).numpy(), axis=1, bitorder="little")[:, : shape[1]]
        codes[torch.from_numpy(keep).bool()] = tensors["values"][:-SLACK]
    return codes


def sizes(shape: tuple[int, int], size: int, stored: int) -> dict[str, tuple[int, ...]]:
    """Returns how large what it stores is, but for `rows` and `sums`; see `formats`."""
    return {"mask": (shape[0], -(-shape[1] // values.WORD)), "values": (stored + SLACK,)}
