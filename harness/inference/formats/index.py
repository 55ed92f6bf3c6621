"""Index: each weight that is not zero with its column as a 16-bit number, row by row.

Bytes per weight: density x (2 + bytes of a value). The work of a product is in proportion to the stored weights, so
this is the format of the highest sparsities. Rows are filled up to a multiple of 8 entries with zeros in column 0.

Tensors: `columns`, uint16 [entries]; `values` [entries]; `rows`, int64 [out + 1], where each row's entries begin.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.problems import Problem

TENSORS = {"columns": "uint16", "values": "codes", "rows": "int64"}
INTEGER = {}
RUN = 8
WIDEST = 1 << 16


def pack(codes: Tensor, groups: int) -> dict[str, Tensor]:
    """A 16-bit column and a value for each weight that is not zero.

    Args:
        codes: [out, in].
        groups: 1; there is one scale a row.

    Raises:
        Problem: A row of more than 65536 columns, or several scales a row.
    """
    fits(codes, groups, "index")
    row, column = codes.nonzero(as_tuple=True)
    return entries(row, column, codes[row, column], len(codes))


def fits(codes: Tensor, groups: int, name: str) -> None:
    """Checks that columns fit a 16-bit number and that there is one scale a row.

    Raises:
        Problem: They do not, or there is not; `name` is the format.
    """
    if codes.shape[1] > WIDEST:
        raise Problem(f"{codes.shape[1]} columns do not fit a 16-bit number", hint="bitmask takes any width")
    if groups > 1:
        raise Problem(f"format {name!r} has one scale a row", hint="dense and bitmask take groups of columns")


def entries(row: Tensor, column: Tensor, value: Tensor, count: int) -> dict[str, Tensor]:
    """Lays out weights given in row order by their places; `count` rows."""
    held = torch.bincount(row, minlength=count)
    rows = torch.zeros(count + 1, dtype=torch.int64)
    torch.cumsum((held + RUN - 1) // RUN * RUN, 0, out=rows[1:])
    place = torch.arange(len(row)) + (rows[:-1] - (held.cumsum(0) - held))[row]
    columns = torch.zeros(int(rows[-1]), dtype=torch.int32)
    columns[place] = column.int()
    values = value.new_zeros(int(rows[-1]))
    values[place] = value
    return {"columns": columns.to(torch.uint16), "values": values, "rows": rows}


def unpack(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """Returns the codes [out, in]."""
    codes = tensors["values"].new_zeros(shape)
    scatter(codes, tensors)
    return codes


def sizes(shape: tuple[int, int], size: int, stored: int) -> dict[str, tuple[int, ...]]:
    """Returns how large what it stores is, but for `rows`; see `formats`."""
    return {"columns": (stored,), "values": (stored,)}


def scatter(codes: Tensor, tensors: Mapping[str, Tensor]) -> None:
    """Puts the entries in their places in `codes` [out, in], in place; fillers are left out."""
    rows, values = tensors["rows"], tensors["values"]
    row = torch.repeat_interleave(torch.arange(len(rows) - 1), rows.diff())
    held = values != 0
    codes[row[held], tensors["columns"].int()[held].long()] = values[held]
