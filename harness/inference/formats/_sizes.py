"""How large the tensors of each format are: the kernels read as much as this says, without looking.

    dense      values [out, words x 64]
    bitmask    mask [out, words], values [stored + 64], rows [out + 1]
    index      columns [stored], values [stored], rows [out + 1]
    slot, nm   tiles [out / 8, in / 16 x slots / 4, 16 + 32 x bytes of a value], and the tail as `index` has it
    int8       sums [out, groups], which `index` has not, and scales [out, groups]

A word is 64 columns, divisions round up, and `stored` is the last entry of `rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from harness.inference.formats import bitmask, index, nm, slot
from harness.inference.values import WORD, group_size
from harness.problems import Problem

Sizes = dict[str, tuple[int, ...]]


def check(tensors: Mapping[str, Tensor], shape: tuple[int, int], format: str, options: Mapping[str, int]) -> None:
    """Checks that tensors, which have the names and types of a format, are as large as it has them for this matrix.

    Args:
        tensors: What is stored, `scales` included.
        shape: Rows and columns of the matrix, (out, in).
        format: The format's name.
        options: All of its options.

    Raises:
        Problem: One is larger or smaller, or `rows` does not ascend from 0; it names the tensor.
    """
    rows = tensors.get("rows")
    if rows is not None:
        _same("rows", rows, (shape[0] + 1,))
        if int(rows[0]) or bool((rows.diff() < 0).any()):
            raise Problem("the tensor rows does not ascend from 0", hint="pack the weights anew")
        if format != "bitmask" and bool((rows % index.RUN).any()):
            raise Problem(f"the tensor rows has a row that is no multiple of {index.RUN}", hint="pack the weights anew")
    stored = 0 if rows is None else int(rows[-1])
    wanted = OF[format](shape, tensors["values"].element_size(), stored, **options)
    groups = _groups(format, shape[1], tensors["scales"]) if "scales" in tensors else 1
    wanted |= {name: (shape[0], groups) for name in ("sums", "scales") if name in tensors}
    for name, size in wanted.items():
        _same(name, tensors[name], size)


def _same(name: str, tensor: Tensor, size: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != size:
        what = f"the tensor {name} should be {list(size)}, not {list(tensor.shape)}"
        raise Problem(what, hint="copy the file again, or pack the weights anew")


def _groups(format: str, columns: int, scales: Tensor) -> int:
    """Returns how many scales a row has: as many as there are, where the format has several and they divide it."""
    found = scales.shape[-1] if scales.ndim and format in GROUPED else 1
    return found if found and -(-columns // group_size(columns, found)) == found else 1


def _dense(shape: tuple[int, int], size: int, stored: int) -> Sizes:
    return {"values": (shape[0], -(-shape[1] // WORD) * WORD)}


def _bitmask(shape: tuple[int, int], size: int, stored: int) -> Sizes:
    return {"mask": (shape[0], -(-shape[1] // WORD)), "values": (stored + bitmask.SLACK,)}


def _index(shape: tuple[int, int], size: int, stored: int) -> Sizes:
    return {"columns": (stored,), "values": (stored,)}


def _slot(shape: tuple[int, int], size: int, stored: int, slots: int) -> Sizes:
    records = -(-shape[1] // slot.COLUMNS) * slots // slot.RECORD
    record = slot.COLUMNS + slot.ROWS * slot.RECORD * size
    return {"tiles": (-(-shape[0] // slot.ROWS), records, record), **_index(shape, size, stored)}


def _nm(shape: tuple[int, int], size: int, stored: int, n: int, m: int) -> Sizes:
    return _slot(shape, size, stored, nm.slots(n, m))


OF: Mapping[str, Callable[..., Sizes]] = {
    "dense": _dense, "bitmask": _bitmask, "index": _index, "slot": _slot, "nm": _nm
}  # fmt: skip
"""From the matrix, the bytes of a value, what is stored and the options to the sizes, by format."""
GROUPED = ("dense", "bitmask")
"""The formats that have several scales a row."""
