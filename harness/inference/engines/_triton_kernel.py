"""The Triton kernel of `triton_bitmask`: y = W x, W expanded from its bitmask a word of 64 columns at a time.

A program has ROWS rows of W. For each word it knows from the bits before them where a row's values lie:

    place of a kept weight = where the row's values begin + kept weights of the row before it
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16
WORD = 64


@triton.jit
def _kernel(
    mask, values, starts, scales, x, y, out, columns, words, batch,
    ROWS: tl.constexpr, BATCH: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    item = tl.arange(0, BATCH)
    lane = tl.arange(0, 64)
    here = row < out
    at = tl.load(starts + row, mask=here, other=0)
    total = tl.zeros([ROWS, BATCH], dtype=tl.float32)
    for word in range(words):
        bits = tl.load(mask + row.to(tl.int64) * words + word, mask=here, other=0)
        keep = ((bits[:, None] >> lane[None, :]) & 1).to(tl.int32)
        before = tl.cumsum(keep, 1) - keep
        weight = tl.load(values + at[:, None] + before, mask=keep != 0, other=0).to(tl.float32)
        column = word * 64 + lane
        inside = (item[:, None] < batch) & (column[None, :] < columns)
        given = tl.load(x + item[:, None] * columns + column[None, :], mask=inside, other=0).to(tl.float32)
        total += tl.sum(weight[:, None, :] * given[None, :, :], 2)
        at += tl.sum(keep, 1)
    if SCALED:
        total *= tl.load(scales + row, mask=here, other=0)[:, None]
    tl.store(y + item[None, :] * out + row[:, None], total, mask=here[:, None] & (item[None, :] < batch))


def multiply(
    mask: Tensor, values: Tensor, starts: Tensor, scales: Tensor | None, x: Tensor, shape: tuple[int, int]
) -> Tensor:
    """Multiplies by a matrix in the bitmask format.

    Args:
        mask: int64 [out, words], 64 columns a word, the first in the lowest bit.
        values: The weights that are not zero, row by row; 16-bit floating point, or int8.
        starts: Where each row's values begin, int64 [out + 1].
        scales: What a row's int8 values are multiplied by, float32 [out, 1]; None for floating-point values.
        x: [batch, in], contiguous, at most 16 rows.
        shape: (out, in).

    Returns:
        float32 [batch, out].
    """
    out, columns = shape
    y = torch.empty(len(x), out, dtype=torch.float32, device=x.device)
    grid = (triton.cdiv(out, ROWS),)
    options = {"ROWS": ROWS, "BATCH": triton.next_power_of_2(len(x)), "SCALED": scales is not None}
    _kernel[grid](mask, values, starts, scales, x, y, out, columns, mask.shape[1], len(x), **options)
    return y
