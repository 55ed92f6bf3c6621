from __future__ import annotations

import pytest
import torch

from harness.inference.engines import _places
from harness.inference.engines._places import BLOCK, places
from harness.inference.formats import pack
from harness.problems import Problem


def test_places_are_the_values_before():
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 2 * BLOCK + 70, generator=draw) * (torch.rand(3, 2 * BLOCK + 70, generator=draw) > 0.75)
    weight[1] = 0
    packed = pack(weight, "bitmask", "fp16")
    mask, starts, offsets = places(packed.tensors["mask"])
    assert (mask.shape, starts.shape, offsets.shape) == ((3, 48), (3, 3), (3, 48))
    kept = torch.nn.functional.pad(weight != 0, (0, 3 * BLOCK - weight.shape[1])).flatten()
    before = kept.cumsum(0) - kept.long()
    assert torch.equal(starts.flatten(), before[::BLOCK].int())
    assert torch.equal(starts.repeat_interleave(16, 1) + offsets, before[::64].view(3, 48))


def test_a_full_block_has_room_in_an_offset():
    *_, offsets = places(torch.full((1, 16), -1))
    assert offsets[0].tolist() == list(range(0, BLOCK, 64))


def test_more_values_than_32_bits_number_are_told(monkeypatch):
    monkeypatch.setattr(_places, "ONES", torch.full((256,), 2**31, dtype=torch.int64))
    with pytest.raises(Problem, match="no place in 32 bits"):
        places(torch.zeros(1, 16, dtype=torch.int64))
