"""Slot: every row owns a fixed number of slots in each 16 columns; what does not fit goes to a tail in format `index`.

A tile is 8 rows x 16 columns. A slot is a 4-bit column number and a value; a row with fewer weights than slots fills
up with zeros, the excess of a row with more is its tail: at 75% sparsity and 4 slots a sixth of the weights. Because
the 16 activations of a tile fit one vector register, AVX2 fetches those of 32 slots by a byte shuffle, without a bit
count or a sum across a vector: the format for decoding without AVX-512. How many slots are best depends on how many
weights there are, and `choice` finds it; in int8 5 at 75% sparsity, 4 at 80% and 2 at 90%.

Bytes per weight: slots/16 x (1/2 + bytes of a value) + the tail.

Tensors: `tiles`, uint8 [row groups, records, 16 + 32 x bytes of a value]: 32 column numbers and 32 values a record, 4
slots of 8 rows. Records take a row's slots in order, so one may end a tile and begin the next; as many tiles follow as
end with a record. `columns`, `values` and `rows` are the tail; with int8 `sums`, int32 [out, 1], of the slotted codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from harness.inference.formats import index

TENSORS = {"tiles": "uint8", **index.TENSORS}
INTEGER = {"sums": "int32"}
RUN = index.RUN
ROWS, COLUMNS, RECORD = 8, 16, 4
SLOTS = (2, 3, 4, 5, 6, 8)


def pack(codes: Tensor, groups: int, *, slots: Literal[2, 3, 4, 5, 6, 8] = 4) -> dict[str, Tensor]:
    """A fixed number of slots in each 16 columns of a row, and a tail for the excess.

    Args:
        codes: [out, in].
        groups: 1; there is one scale a row.
        slots: Slots of a row in a tile.

    Raises:
        Problem: A row of more than 65536 columns, or several scales a row.
    """
    index.fits(codes, groups, "slot")
    row, column = codes.nonzero(as_tuple=True)
    value = codes[row, column]
    slot = _rank(row * (-(-codes.shape[1] // COLUMNS)) + column // COLUMNS)
    fits = slot < slots
    tiles = _tiles(row[fits], column[fits], slot[fits], value[fits], tuple(codes.shape), slots)
    tail = ~fits
    tensors = {"tiles": tiles, **index.entries(row[tail], column[tail], value[tail], len(codes))}
    if not codes.is_floating_point():
        total = torch.zeros(len(codes), dtype=torch.int32)
        tensors["sums"] = total.index_add_(0, row[fits], value[fits].int())[:, None]
    return tensors


def unpack(tensors: Mapping[str, Tensor], shape: tuple[int, int], *, slots: Literal[2, 3, 4, 5, 6, 8] = 4) -> Tensor:
    """Returns the codes [out, in]."""
    tiles, dtype = tensors["tiles"], tensors["values"].dtype
    codes = torch.zeros(len(tiles) * ROWS, -(-shape[1] // COLUMNS) * COLUMNS, dtype=dtype)
    held = tiles[:, :, 16:].contiguous().view(dtype)
    group, record, place = held.nonzero(as_tuple=True)
    row, slot, nibble = (part[place] for part in _order(dtype))
    byte = tiles[group, record, nibble % COLUMNS].long()
    column = torch.where(nibble < COLUMNS, byte & 15, byte >> 4)
    codes[group * ROWS + row, (record * RECORD + slot) // slots * COLUMNS + column] = held[group, record, place]
    codes = codes[: shape[0], : shape[1]].contiguous()
    index.scatter(codes, tensors)
    return codes


def sizes(
    shape: tuple[int, int], size: int, stored: int, *, slots: Literal[2, 3, 4, 5, 6, 8] = 4
) -> dict[str, tuple[int, ...]]:
    """Returns how large what it stores is, but for `rows` and `sums`; see `formats`."""
    tiles = (-(-shape[0] // ROWS), _records(shape[1], slots), COLUMNS + ROWS * RECORD * size)
    return {"tiles": tiles, **index.sizes(shape, size, stored)}


def _records(columns: int, slots: int) -> int:
    turn = math.lcm(slots, RECORD)
    return -(-columns // (turn // slots * COLUMNS)) * turn // RECORD


def _rank(block: Tensor) -> Tensor:
    """Returns which one each entry is within its block, from 0; blocks are in ascending order."""
    first = torch.ones(len(block), dtype=torch.bool)
    first[1:] = block[1:] != block[:-1]
    begin = first.nonzero()[:, 0]
    return torch.arange(len(block)) - torch.repeat_interleave(
        begin, torch.diff(begin, append=torch.tensor([len(block)]))
    )


def _order(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Returns, for each of a record's 32 values, its row, its slot and the place of its column number.

    Places 16 to 31 are the high nibbles of the 16 bytes. The kernels fix the order: fp32 and fp16 values lie slot by
    slot; of bf16, two slots are interleaved so that a shift and a mask part them; of int8, the four slots of a row lie
    together, which one instruction multiplies and adds.
    """
    place = torch.arange(32)
    if dtype == torch.int8:
        row, slot = place // 16 * 4 + place % 16 // 4, place % 4
    elif dtype == torch.bfloat16:
        row, slot = place % 16 // 2, place // 16 * 2 + place % 2
    else:
        row, slot = place % 8, place // 8
    within = row % 4 * 4 + slot if dtype == torch.int8 else slot * 4 + row % 4
    return row, slot, row // 4 * COLUMNS + within


def _tiles(row: Tensor, column: Tensor, slot: Tensor, value: Tensor, shape: tuple[int, int], slots: int) -> Tensor:
    groups, records = -(-shape[0] // ROWS), _records(shape[1], slots)
    within = column // COLUMNS * slots + slot
    record = (row // ROWS) * records + within // RECORD
    of_row, of_slot, nibble = _order(value.dtype)
    where = torch.empty(ROWS, RECORD, dtype=torch.int64)
    where[of_row, of_slot] = torch.arange(32)
    place = where[row % ROWS, within % RECORD]
    values = value.new_zeros(groups * records * 32)
    values[record * 32 + place] = value
    numbers = torch.zeros(groups * records * 32, dtype=torch.uint8)
    numbers[record * 32 + nibble[place]] = (column % COLUMNS).to(torch.uint8)
    halves = numbers.view(-1, 2, 16)
    numbers = halves[:, 0] | halves[:, 1] << 4
    return torch.cat([numbers, values.view(torch.uint8).view(len(numbers), -1)], 1).view(groups, records, -1)
