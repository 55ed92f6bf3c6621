"""Which format a matrix is packed in: the one whose product with one row of activations should take least time.

    time = max(bytes / bandwidth of a thread, words x (of a word + of a stored weight x stored weights a word))

The bytes are those the format would store. A word is 64 weights; what it costs was measured for each build of the
kernels on one thread of an Intel Xeon of 2023 (`COSTS`, in nanoseconds), from memory where reading and arithmetic hold
each other up, else in the cache. Both terms shrink alike with more threads, so the choice does not depend on their
number. It is an estimate: `harness bench linear` measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness import rooms
from harness.exported import AUTO
from harness.inference import formats
from harness.inference.formats import Packed, slot
from harness.inference.formats.index import WIDEST
from harness.inference.kernels import isa
from harness.inference.values import PRECISIONS, WORD
from harness.problems import unknown
from harness.quantization.grid import Grid

BANDWIDTH = 15.0
"""GB/s that one thread reads."""
COSTS: dict[str, dict[str, dict[str, tuple[float, float]]]] = {
    "avx512": {
        "dense": {"fp32": (4.1, 0), "bf16": (2.1, 0), "fp16": (4.1, 0), "int8": (1.0, 0)},
        "bitmask": {"fp32": (3.9, 0.02), "bf16": (3.1, 0), "fp16": (5.2, 0), "int8": (1.3, 0)},
        "slot": {"fp32": (4.8, 0.7), "bf16": (4.2, 0.6), "fp16": (4.2, 0.6), "int8": (2.1, 0.33)},
        "index": {"fp32": (0, 0.5), "bf16": (0, 0.38), "fp16": (0, 0.38), "int8": (0, 0.3)},
    },
    "avx2": {
        "dense": {"fp32": (4.1, 0), "bf16": (2.6, 0), "fp16": (4.1, 0), "int8": (2.0, 0)},
        "bitmask": {"fp32": (9.7, 0), "bf16": (6.6, 0), "fp16": (7.2, 0), "int8": (5.5, 0)},
        "slot": {"fp32": (4.8, 0.7), "bf16": (4.2, 0.6), "fp16": (4.2, 0.6), "int8": (2.1, 0.38)},
        "index": {"fp32": (0, 0.5), "bf16": (0, 0.43), "fp16": (0, 0.43), "int8": (0, 0.42)},
    },
}
"""Nanoseconds of a word of 64 columns and of each stored weight; of `slot`, of 4 slots and of each weight of the tail.
A portable build is taken for AVX2."""


@dataclass(frozen=True)
class Estimate:
    """What a format should need for one product.

    Attributes:
        format: The format with its options.
        bytes: Stored.
        seconds: On one thread.
    """

    format: str
    bytes: int
    seconds: float


def pack(weight: Tensor, format: str, precision: str, *, group: int = 0, grid: Grid | None = None) -> Packed:
    """Packs a matrix as `formats.pack` does; `auto` is the format that `choose` says, of those that hold its scales."""
    if format == AUTO:
        columns = grid.group if grid is not None else group
        format = choose(weight, precision, grouped=0 < columns < weight.shape[1])
    return formats.pack(weight, format, precision, group=group, grid=grid)


def choose(weight: Tensor, precision: str = "fp32", *, grouped: bool = False) -> str:
    """Returns the format, with its options, that should multiply fastest on this processor.

    Args:
        weight: [out, in]; only where it is zero counts.
        precision: Of the values that would be stored.
        grouped: Whether a row has several scales, which few formats hold.

    Raises:
        Problem: The precision is unknown.
    """
    found = estimates(weight, precision)
    return next(each.format for each in found if not grouped or _holds_groups(each.format))


def _holds_groups(format: str) -> bool:
    method = rooms.ROOMS["format"].method(rooms.parse(format).name)
    return method.constants.get("GROUPED", False)


def estimates(weight: Tensor, precision: str = "fp32") -> list[Estimate]:
    """Returns what every format should need, the fastest first; those that cannot hold the matrix are left out.

    Args:
        weight: [out, in]; only where it is zero counts.
        precision: Of the values that would be stored.

    Raises:
        Problem: The precision is unknown.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    rows, columns = weight.shape
    keep = weight != 0
    stored, size = int(keep.sum()), PRECISIONS[precision].itemsize
    words = rows * -(-columns // WORD)
    costs = COSTS.get(isa.best(), COSTS["avx2"])
    found = [
        _estimate("dense", words * WORD * size, words, 0, costs["dense"][precision]),
        _estimate("bitmask", words * WORD // 8 + stored * size, words, stored, costs["bitmask"][precision]),
    ]
    if columns <= WIDEST:
        found.append(_estimate("index", stored * (2 + size), 0, stored, costs["index"][precision]))
        held = nn.functional.pad(keep, (0, -columns % 16)).view(rows, -1, 16).sum(2, dtype=torch.uint8)
        for slots in slot.SLOTS:
            tail = int((held.int() - slots).clamp_min_(0).sum())
            held_slots = held.numel() * slots
            taken = held_slots // 2 + held_slots * size + tail * (2 + size)
            found.append(_estimate(f"slot:slots={slots}", taken, held_slots / 16, tail, costs["slot"][precision]))
    return sorted(found, key=lambda each: (each.seconds, each.bytes))


def _estimate(name: str, taken: int, words: float, stored: int, cost: tuple[float, float]) -> Estimate:
    work = words * cost[0] + stored * cost[1]
    return Estimate(name, taken, max(taken / BANDWIDTH, work) * 1e-9)
