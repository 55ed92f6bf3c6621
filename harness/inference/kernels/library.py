"""Many rows of activations by torch's own product: the weights are expanded into a buffer that stays in a cache.

Where it is faster than our kernels was measured on two threads of an Intel Xeon of 2023: in `bitmask` and `dense` with
a thousand rows of activations, where a matrix is small or half of it is stored; in the other formats with most small
matrices and long batches of half the weights. A dense float32 matrix is multiplied as it lies.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.inference.kernels import isa
from harness.inference.values import WORD

if TYPE_CHECKING:
    from harness.inference.kernels.linear import Ready

DECODE = 32
"""Most rows of activations of the kernels for few, in the formats that do not give a row's weights in order."""
IN_ORDER = ("dense", "bitmask")
"""The formats that do: of them panels of weights are multiplied, which are nearly as fast as torch (`panels.h`)."""
SMALL = {"avx512": 150, "avx2": 110, "portable": math.inf}
"""What a matrix's width and height cost a product weight by weight, in weights of a row or a column; see `many`."""
LONG, LONGER, HALF = 256, 1024, 0.45
"""Rows of activations that are many for any matrix, for panels, and the share of weights that is much; see `many`."""
BLOCK, BLOCK_ROWS = 1 << 22, 512
"""Bytes of expanded weights that stay in a cache, but at least so many rows: fewer make torch's product slower."""


def many(source: str, precision: str, rows: int, columns: int, share: float) -> int:
    """Returns from how many rows of activations on torch multiplies; `share` of the matrix is stored.

    To multiply weight by weight costs a share of torch's product, and an effort for each row and each column of the
    matrix that many weights make good. Of many weights expanding is worth it for fewer rows.
    """
    best, much = isa.best(), share >= HALF
    if source == "dense" and precision == "fp32":
        return DECODE
    if source in IN_ORDER and precision == "int8" and best == "avx512":
        return sys.maxsize  # bytes are multiplied
    small = share + SMALL[best] * (1 / max(1, rows) + 1 / max(1, columns)) >= 1
    if source in IN_ORDER and best != "portable":
        return LONGER if small or (much and best == "avx512") else sys.maxsize
    if small:
        few = DECODE + 1 if source == "bitmask" else 2 * DECODE
        return few if much else LONG
    return LONG if best == "avx512" and precision == "fp32" and much else sys.maxsize


def multiply(ready: Ready, x: Tensor) -> Tensor:
    """Returns x W^T + bias by torch, float32 [..., rows]; weights are expanded a block of rows at a time.

    Args:
        ready: The matrix.
        x: [..., columns], float32 and contiguous.
    """
    if ready.weight is not None:
        return F.linear(x, ready.weight, ready.bias)
    width = -(-ready.columns // WORD) * WORD
    step = min(ready.rows, max(BLOCK_ROWS, BLOCK // (4 * width)))
    block = torch.empty(step, width, dtype=torch.float32, device="cpu")
    weight, threads = block[:, : ready.columns], torch.get_num_threads()
    if step == ready.rows:
        ready.expand(ready.matrix, 0, step, block.data_ptr(), threads)
        return F.linear(x, weight, ready.bias)
    y = torch.empty((*x.shape[:-1], ready.rows), dtype=torch.float32, device="cpu")
    flat, to = x.view(-1, ready.columns), y.view(-1, ready.rows)
    for first in range(0, ready.rows, step):
        last = min(first + step, ready.rows)
        ready.expand(ready.matrix, first, last, block.data_ptr(), threads)
        torch.mm(flat, weight[: last - first].T, out=to[:, first:last])
    return y if ready.bias is None else y.add_(ready.bias)
