"""Where the values of a bitmask matrix lie, counted once, so that a GPU's programs need not wait for each other.

place of a kept weight = start of its block of 1024 columns + offset of its word of 64 + kept weights before it there
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from harness.problems import Problem

BLOCK = 1024
"""Columns that a start is kept for: an offset in them has room in 16 bits."""
ONES = torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.uint8)


def places(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts where values lie.

    Args:
        mask: int64 [out, words], 64 columns a word, the first in the lowest bit.

    Returns:
        The mask with words of zeros up to whole blocks, int64 [out, 16 blocks]; the place of each block's first value,
        int32 [out, blocks]; the offset of each word's from there, int16 [out, 16 blocks].

    Raises:
        Problem: 2^31 values or more.
    """
    words = BLOCK // 64
    mask = F.pad(mask, (0, -mask.shape[1] % words))
    counts = ONES[mask.view(torch.uint8).int()].unflatten(1, (-1, words, 8)).sum(-1)
    ends = counts.sum(-1).flatten().cumsum(0)
    if len(ends) and ends[-1] >= 2**31:
        raise Problem("a matrix of 2^31 values or more has no place in 32 bits", hint="pack it in parts")
    starts = F.pad(ends, (1, 0))[:-1].view(counts.shape[:2]).int()
    return mask, starts, (counts.cumsum(-1) - counts).flatten(1).short()
