"""Dense: every weight is stored, zeros too; what the other formats are measured against.

Tensors: `values` [out, words x 64], the codes, rows filled up with zeros to whole words of 64 columns; with int8
`sums`, int32 [out, groups], the sum of the codes of each group.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from harness.inference import values

TENSORS = {"values": "codes"}
INTEGER = {"sums": "int32"}
GROUPED = True


def pack(codes: Tensor, groups: int) -> dict[str, Tensor]:
    """Every weight is stored, zeros too.

    Args:
        codes: [out, in].
        groups: How many groups of columns have a scale of their own.
    """
    tensors = {"values": nn.functional.pad(codes, (0, -codes.shape[1] % values.WORD))}
    return tensors if codes.is_floating_point() else {**tensors, "sums": values.sums(codes, groups)}


def unpack(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """Returns the codes [out, in]."""
    return tensors["values"][:, : shape[1]].contiguous()


def sizes(shape: tuple[int, int], size: int, stored: int) -> dict[str, tuple[int, ...]]:
    """Returns how large what it stores is, but for `sums`; see `formats`."""
    return {"values": (shape[0], -(-shape[1] // values.WORD) * values.WORD)}
