"""The Triton kernels of `triton_bitmask`: y = W x + b with W in the bitmask format, and W itself in a 16-bit type.

    place of a kept weight = start of its block + offset of its word + kept weights before it in the word

Starts and offsets are counted once, when a layer is packed (`_places`), so that no program waits for
another word's values before it knows where its own lie. A program has ROWS rows and some blocks of 1024 columns; a
thread has RUN neighbouring columns of a row, whose values follow each other. Where rows alone make too few programs,
columns are split between several, and a second kernel adds their sums in a fixed order. Several rows of activations are
multiplied by tensor cores.

    bytes a weight = b (1 - sparsity) + 1/8 + 1/32 + 1/256        b = 2 (16-bit values) or 1 (int8)

are read once: the values, a bit a weight, 2 bytes a word and 4 a block. At 75% that is 0.66 bytes for fp16 values, 3.0
times less than dense fp16, and 0.41 for int8, 4.9 times less. With one row of activations the loop compiles to about 12
instructions a weight, kept or not (`sm_90`), so that arithmetic may bind before the memory does.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.inference.engines._places import BLOCK

RUN = 8
ROWS = {"vector": 8, "matrix": 16, "expand": 4}
"""Rows of a program: with one row of activations, with several, and when W is expanded."""
PROGRAMS = 512
"""Columns are split where rows make fewer programs: about four for each of an H100's 132 processors."""
LEAST = 16
"""Rows of activations that tensor cores take at a time."""


@triton.jit
def _count(bits):
    """Returns the ones of each uint64: the form that LLVM knows as one instruction."""
    bits = bits - ((bits >> 1) & 0x5555555555555555)
    bits = (bits & 0x3333333333333333) + ((bits >> 2) & 0x3333333333333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((bits * 0x0101010101010101) >> 56).to(tl.int32)


@triton.jit
def _below(lane):
    """Returns the bits of a word that are below some lanes of it."""
    return (tl.full(lane.shape, 1, tl.uint64) << lane.to(tl.uint64)) - 1


@triton.jit
def _finish(total, row, scales, bias, y, here, out, SCALED: tl.constexpr, BIASED: tl.constexpr):
    if SCALED:
        total *= tl.load(scales + row, mask=row < out, other=0)
    if BIASED:
        total += tl.load(bias + row, mask=row < out, other=0).to(tl.float32)
    tl.store(y + row, total, mask=here)


@triton.jit
def _product(
    mask, values, starts, offsets, scales, bias, x, y, out, columns, blocks, each, batch,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, RUN: tl.constexpr, BATCH: tl.constexpr, OPERAND: tl.constexpr,
    DIGITS: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    own = tl.minimum(row, out - 1).to(tl.int64)
    item = tl.arange(0, BATCH)[None, :]
    run = tl.arange(0, BLOCK // RUN)
    lane = (run * RUN % 64)[None, :]
    sums = tl.zeros([ROWS, BATCH], dtype=tl.float32)
    parts = tl.zeros([ROWS, BLOCK // RUN], dtype=tl.float32)
    first = tl.program_id(1) * each
    for block in range(first, tl.minimum(first + each, blocks)):
        word = (own * blocks + block) * (BLOCK // 64) + run[None, :] * RUN // 64
        bits = tl.load(mask + word).to(tl.uint64, bitcast=True)
        place = tl.load(starts + own * blocks + block) + tl.load(offsets + word).to(tl.int32)
        place += _count(bits & _below(lane))
        bits = (bits >> lane.to(tl.uint64)).to(tl.uint32)
        for step in tl.static_range(RUN):
            keep = (bits & (1 << step)) != 0
            # read whether kept or not: an address that is always valid costs less than a load that may be left out
            weight = tl.load(values + place).to(OPERAND)
            column = block * BLOCK + run * RUN + step
            if BATCH == 1:
                given = tl.load(x + column[None, :], mask=column[None, :] < columns, other=0).to(OPERAND)
                parts = tl.where(keep, parts + weight * given, parts)
            else:
                inside = (column[:, None] < columns) & (item < batch)
                given = tl.load(x + item * columns + column[:, None], mask=inside, other=0).to(OPERAND)
                sums = tl.dot(tl.where(keep, weight, 0.0).to(OPERAND), given, sums, input_precision=DIGITS)
            place = tl.where(keep, place + 1, place)
    if BATCH == 1:
        sums = tl.sum(parts, 1)[:, None]
    y += (tl.program_id(1) * batch + item) * out
    _finish(sums, row, scales, bias, y, (row < out) & (item < batch), out, SCALED, BIASED)


@triton.jit
def _add(
    sums, scales, bias, y, out, splits, batch,
    ROWS: tl.constexpr, SCALED: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    item = tl.program_id(1)
    total = tl.zeros([ROWS], dtype=tl.float32)
    for split in range(splits):
        total += tl.load(sums + (split * batch + item) * out + row, mask=row < out, other=0)
    _finish(total, row, scales, bias, y + item * out, row < out, out, SCALED, BIASED)


@triton.jit
def _expand(
    mask, values, starts, offsets, scales, dense, out, columns, blocks,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    own = tl.minimum(row, out - 1).to(tl.int64)
    block = tl.program_id(1)
    lane = tl.arange(0, BLOCK)[None, :]
    word = (own * blocks + block) * (BLOCK // 64) + lane // 64
    bits = tl.load(mask + word).to(tl.uint64, bitcast=True)
    place = tl.load(starts + own * blocks + block) + tl.load(offsets + word).to(tl.int32)
    place += _count(bits & _below(lane % 64))
    keep = ((bits >> (lane % 64).to(tl.uint64)) & 1) != 0
    weight = tl.load(values + place, mask=keep, other=0).to(tl.float32)
    if SCALED:
        weight *= tl.load(scales + own)
    column = block * BLOCK + lane
    tl.store(dense + own * columns + column, weight, mask=(row < out) & (column < columns))


def multiply(
    mask: Tensor,
    values: Tensor,
    starts: Tensor,
    offsets: Tensor,
    scales: Tensor | None,
    bias: Tensor | None,
    x: Tensor,
) -> Tensor:
    """Multiplies by a matrix in the bitmask format, with sums in fp32.

    Args:
        mask: int64 [out, 16 blocks], of `_places`, as are `starts` and `offsets`.
        values: The weights that are not zero, row by row, and one more at least; 16-bit floating point, or int8.
        starts: int32 [out, blocks].
        offsets: int16 [out, 16 blocks].
        scales: What a row's int8 values are multiplied by, float32 [out, 1]; None for floating-point values.
        bias: [out] or None.
        x: [batch, in], contiguous.

    Returns:
        [batch, out] in x's type.
    """
    (batch, columns), (out, blocks) = x.shape, starts.shape
    y = x.new_empty(batch, out)
    rows = ROWS["vector" if batch == 1 else "matrix"]
    programs = triton.cdiv(out, rows)
    each = triton.cdiv(blocks, min(blocks, triton.cdiv(PROGRAMS, programs)))
    splits = triton.cdiv(blocks, each)
    last = {"SCALED": scales is not None, "BIASED": bias is not None}
    sums, ending = (y, last) if splits == 1 else (x.new_empty(splits, batch, out, dtype=torch.float32), {})
    operand, digits = _operand(values, x)
    options = {"ROWS": rows, "BLOCK": BLOCK, "RUN": RUN, "OPERAND": operand, "DIGITS": digits}
    options |= {
        "BATCH": 1 if batch == 1 else triton.next_power_of_2(max(batch, LEAST)),
        "SCALED": False,
        "BIASED": False,
    }
    sizes = (out, columns, blocks, each, batch)
    _product[(programs, splits)](mask, values, starts, offsets, scales, bias, x, sums, *sizes, **options | ending)
    if splits > 1:
        _add[(triton.cdiv(out, 128), batch)](sums, scales, bias, y, out, splits, batch, ROWS=128, **last)
    return y


def _operand(values: Tensor, x: Tensor) -> tuple[tl.dtype, str]:
    """Returns the type of the products' factors and how a tensor core reads fp32: tf32 holds either 16-bit type."""
    digits = "ieee" if x.dtype == torch.float32 else "tf32"
    alike = len(x) > 1 and values.dtype in (torch.int8, x.dtype)
    return getattr(tl, str(x.dtype).removeprefix("torch.")) if alike else tl.float32, digits


def expand(
    mask: Tensor,
    values: Tensor,
    starts: Tensor,
    offsets: Tensor,
    scales: Tensor | None,
    columns: int,
    dtype: torch.dtype,
) -> Tensor:
    """Returns the matrix with its zeros, [out, columns] in a type; the arguments are those of `multiply`."""
    out, blocks = starts.shape
    dense = torch.empty(out, columns, dtype=dtype, device=mask.device)
    options = {"ROWS": ROWS["expand"], "BLOCK": BLOCK, "SCALED": scales is not None}
    grid = (triton.cdiv(out, options["ROWS"]), blocks)
    _expand[grid](mask, values, starts, offsets, scales, dense, out, columns, blocks, **options)
    return dense
