from __future__ import annotations

import numpy
import pytest
import torch

from harness.tuning.bits import Bits, pack


@pytest.mark.parametrize("shape", [(3, 8), (5, 13), (1, 1), (4, 64), (7, 3)])
def test_rows_come_back_as_they_were_put_and_lie_as_numpy_packs_them(shape):
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) < 0.5
    packed = pack(keep)
    assert packed.numpy().tolist() == numpy.packbits(keep.numpy(), axis=1, bitorder="little").tolist()
    mask = Bits(packed, shape[1])
    assert mask.shape == keep.shape and mask.device == keep.device
    for rows in (slice(None), slice(0, 1), slice(1, 3), slice(2, 2)):
        assert torch.equal(mask[rows], keep[rows]) and mask[rows].is_contiguous()
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            assert torch.equal(mask.numbers(rows, dtype), keep[rows].to(dtype))


def test_what_is_put_goes_to_the_packed_tensor_and_what_was_taken_stays():
    packed = pack(torch.zeros(4, 11, dtype=torch.bool))
    mask = Bits(packed, 11)
    before = mask[:]
    rows = torch.arange(22).view(2, 11) % 3 == 0
    mask[1:3] = rows
    assert torch.equal(Bits(packed, 11)[1:3], rows) and not mask[:1].any() and not mask[3:].any()
    assert not before.any()


def test_single_positions_are_those_of_the_flat_mask():
    keep = torch.rand(7, 13, generator=torch.Generator().manual_seed(0)) < 0.5
    positions = torch.arange(90, 0, -3)
    found = Bits.of(keep).at(positions)
    assert found.dtype == torch.bool and torch.equal(found, keep.view(-1)[positions])


def test_a_transposed_mask_can_be_put():
    keep = torch.rand(9, 6) < 0.5
    assert torch.equal(Bits.of(keep.T)[:], keep.T)
