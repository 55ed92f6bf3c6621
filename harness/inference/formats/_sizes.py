"""Whether packed tensors are as large as their format has them: the kernels read as much as that, without looking.

Every format says how large its own tensors are (`sizes`); what several share is checked here: that `rows` ascends, and
that `sums` and `scales`, which int8 adds, have a number for each row and group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from harness.inference.values import group_size
from harness.problems import Problem

Sizes = dict[str, tuple[int, ...]]


def check(
    tensors: Mapping[str, Tensor], shape: tuple[int, int], sizes: Callable[..., Sizes], *, run: int, grouped: bool
) -> None:
    """Checks that tensors, which have the names and types of a format, are as large as it has them for this matrix.

    Args:
        tensors: What is stored, `scales` included.
        shape: Rows and columns of the matrix, (out, in).
        sizes: The format's, with its options.
        run: What `rows` holds multiples of.
        grouped: Whether the format has several scales a row.

    Raises:
        Problem: One is larger or smaller, or `rows` does not ascend from 0; it names the tensor.
    """
    rows = tensors.get("rows")
    if rows is not None:
        _same("rows", rows, (shape[0] + 1,))
        if int(rows[0]) or bool((rows.diff() < 0).any()):
            raise Problem("the tensor rows does not ascend from 0", hint="pack the weights anew")
        if run > 1 and bool((rows % run).any()):
            raise Problem(f"the tensor rows has a row that is no multiple of {run}", hint="pack the weights anew")
    stored = 0 if rows is None else int(rows[-1])
    wanted = sizes(shape, tensors["values"].element_size(), stored)
    groups = _groups(shape[1], tensors["scales"], grouped) if "scales" in tensors else 1
    wanted |= {name: (shape[0], groups) for name in ("sums", "scales") if name in tensors}
    for name, size in wanted.items():
        _same(name, tensors[name], size)


def _same(name: str, tensor: Tensor, size: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != size:
        what = f"the tensor {name} should be {list(size)}, not {list(tensor.shape)}"
        raise Problem(what, hint="copy the file again, or pack the weights anew")


def _groups(columns: int, scales: Tensor, grouped: bool) -> int:
    """Returns how many scales a row has: as many as there are, where the format has several and they divide it."""
    found = scales.shape[-1] if scales.ndim and grouped else 1
    return found if found and -(-columns // group_size(columns, found)) == found else 1
