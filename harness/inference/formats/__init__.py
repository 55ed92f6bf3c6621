"""Packed weights: a matrix stored without its zeros, in a format of the room and a precision of its values.

The two are apart. A precision turns weights into *codes* (`inference/values.py`): the same numbers for fp32, rounded
ones for bf16 and fp16, integers of a byte with scales for int8. A format is a file of this room that lays codes
of any of these types out in memory and gets them back:

    pack(codes [out, in], groups, *, options) -> dict[str, Tensor]
    unpack(tensors, shape, *, options) -> codes [out, in], byte for byte
    sizes(shape, size, stored, *, options) -> the shapes of its tensors
    TENSORS, INTEGER        the names and types of what is stored, and of what is added for int8
    GROUPED, RUN            whether a row may have several scales (no), what `rows` holds multiples of (1)

so a new format knows nothing of scales or rounding. `sizes` is given (out, in), the bytes of a value and the last entry
of `rows`, and leaves out what is everywhere so large: `rows` [out + 1], and for int8 `sums` and `scales` [out, groups].
A code that is zero is not stored, whether it was pruned or rounded to zero. `pack` and `unpack` here do both steps and
are what others call:

    packed = pack(weight, "bitmask", "int8")      # or "slot:slots=8", "2:4", "index", "dense"
    packed.bytes, unpack(packed)                  # fp32 [out, in]; what the kernels multiply with, exactly

`inference/storage.py` writes a model's packed matrices into one file, `inference/choice.py` picks a format by a cost
model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from harness import rooms
from harness.inference.formats import _sizes
from harness.inference.values import PRECISIONS, decode, encode
from harness.problems import Problem, unknown
from harness.quantization.grid import Grid


@dataclass(frozen=True)
class Packed:
    """A packed matrix.

    Attributes:
        format: The format with its options written out, as `rooms` writes a choice: "slot:slots=4".
        precision: One of `PRECISIONS`.
        shape: Rows and columns of the matrix, (out, in).
        tensors: What the format stores, in its order; with int8 also `scales`, fp32 [out, groups].
    """

    format: str
    precision: str
    shape: tuple[int, int]
    tensors: Mapping[str, Tensor]

    @property
    def bytes(self) -> int:
        """What a product reads of the matrix from memory; the size in a file, but for its header."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


def pack(
    weight: Tensor, format: str = "bitmask", precision: str = "fp32", *, group: int = 0, grid: Grid | None = None
) -> Packed:
    """Packs a matrix.

    Args:
        weight: [out, in], floating point, finite, on the CPU.
        format: A format of the room, with options or without.
        precision: One of `PRECISIONS`.
        group: With int8, how many columns share a scale, a multiple of 64; 0 is the whole row. Formats `dense` and
            `bitmask` only.
        grid: With int8, the grid that the weights already lie on, if they were quantised: codes and scales stay.

    Raises:
        Problem: Not a finite matrix; an unknown format or precision; weights that the format cannot hold.
    """
    choice = rooms.resolve("format", format)
    codes, steps = encode(weight, precision, group=group, grid=grid)
    tensors = rooms.bind("format", choice)(codes, 1 if steps is None else steps.shape[1])
    if steps is not None:
        tensors["scales"] = steps
    return Packed(str(choice), precision, tuple(weight.shape), tensors)


def unpack(packed: Packed) -> Tensor:
    """Returns the matrix, fp32 [out, in]: the weights themselves for fp32, else the rounded ones that are multiplied.

    Raises:
        Problem: Its format is unknown here, or its tensors are not what the format stores.
    """
    check(packed)
    tensors = {name: tensor for name, tensor in packed.tensors.items() if name != "scales"}
    codes = rooms.bind("format", packed.format, "unpack")(tensors, packed.shape)
    return decode(codes, packed.tensors.get("scales"))


def check(packed: Packed, where: str | None = None) -> None:
    """Checks that a packed matrix has a known format and precision and tensors of the right names, types and sizes.

    The kernels read what these say without looking. What is checked costs no more for a large matrix: that every
    column number lies in the matrix, say, is taken on trust; `storage` holds a checksum for it.

    Args:
        packed: The matrix.
        where: What problems name: the file and the layer.

    Raises:
        Problem: It has not; the tensor is named.
    """
    wanted = types(packed.format, packed.precision, where)
    found = {name: _name(tensor.dtype) for name, tensor in packed.tensors.items()}
    if list(found.items()) != list(wanted.items()):
        what = f"format {packed.format!r} in {packed.precision} stores {_listed(wanted)}, not {_listed(found)}"
        raise Problem(what, where=where, hint="pack the weights anew; packed tensors cannot be cast")
    try:
        _sizes.check(packed.tensors, packed.shape, **_layout(packed.format))
    except Problem as problem:
        rows, columns = packed.shape
        raise problem.at(where or f"{packed.format} {packed.precision} of {rows} x {columns}") from None


def types(format: str, precision: str, where: str | None = None) -> Mapping[str, str]:
    """Returns the names of the tensors that a format stores in a precision, in order, with their types.

    Raises:
        Problem: The format or the precision is unknown; `where` is the place it is written.
    """
    try:
        return _types(format, precision)
    except Problem as problem:
        raise problem.at(where) if where else problem from None


@functools.cache
def _types(format: str, precision: str) -> Mapping[str, str]:
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    module = rooms.load("format", rooms.resolve("format", format).name)
    stored = {**module.TENSORS, **({**module.INTEGER, "scales": "float32"} if precision == "int8" else {})}
    codes = _name(PRECISIONS[precision])
    return MappingProxyType({name: codes if dtype == "codes" else dtype for name, dtype in stored.items()})


@functools.cache
def _layout(format: str) -> Mapping[str, Any]:
    """A model has hundreds of layers of few formats, and reading a choice takes longer than the rest of a check."""
    choice = rooms.resolve("format", format)
    module = rooms.load("format", choice.name)
    bound = rooms.bind("format", choice, "sizes")
    return {"sizes": bound, "run": getattr(module, "RUN", 1), "grouped": getattr(module, "GROUPED", False)}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in types.items())
