from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.inference.values import decode, encode, group_size, sums
from harness.problems import Problem
from harness.quantization.grid import Grid, spread


def grid(scale, group, shape=(2, 1)):
    """A symmetric grid with one scale everywhere."""
    return Grid(torch.full(shape, scale), torch.zeros(shape), 8, group)


def test_int8_is_off_by_half_a_step_at_most():
    weight = torch.randn(7, 200)
    weight[3] = 0
    codes, scales = encode(weight, "int8")
    assert codes.abs().amax(1).tolist() == [127, 127, 127, 0, 127, 127, 127]
    assert ((decode(codes, scales) - weight).abs() <= scales / 2 * (1 + 1e-6)).all()


def test_groups_have_their_own_scales():
    weight = torch.randn(5, 300)
    weight[:, 128:256] *= 100
    codes, scales = encode(weight, "int8", group=128)
    for g, columns in enumerate((slice(0, 128), slice(128, 256), slice(256, 300))):
        alone, scale = encode(weight[:, columns].contiguous(), "int8")
        assert torch.equal(codes[:, columns], alone) and torch.equal(scales[:, g : g + 1], scale)
        assert torch.equal(sums(codes, 3)[:, g], alone.sum(1).int())


@pytest.mark.parametrize(("bits", "symmetric"), [(8, True), (4, True), (4, False)])
@pytest.mark.parametrize("group", [None, 64, 128])
def test_a_grid_that_is_given_is_kept(bits, symmetric, group):
    weight = torch.randn(6, 256) - 0.3
    own = spread(weight, bits, symmetric, group)
    codes = own.encode(weight)
    again, scales = encode(own.decode(codes), "int8", grid=own)
    assert torch.equal(again, codes - own.zeros(codes)) and torch.equal(scales, own.scale)
    assert torch.equal(decode(again, scales), own.decode(codes))
    assert torch.equal(encode(own.decode(codes), "int8", grid=own, group=group or 0)[0], again)


def test_all_codes_of_a_byte_are_kept():
    codes = torch.arange(-128, 128, dtype=torch.int8)[None]
    assert torch.equal(encode(decode(codes, torch.ones(1, 1)), "int8", grid=grid(1.0, 256, (1, 1)))[0], codes)


@given(st.integers(1, 20), st.integers(1, 5))
def test_group_size_is_found_again(words, size):
    columns, group = words * 64, size * 64
    groups = -(-columns // group)
    found = group_size(columns, groups)
    assert found % 64 == 0 or groups == 1
    assert -(-columns // found) == groups


@pytest.mark.parametrize(
    "weight, precision, options, said",
    [
        (torch.tensor([[1.0, float("nan")]]), "fp32", {}, "1 of 2 weights are not finite"),
        (torch.tensor([[1.0, float("inf")]]), "int8", {}, "1 of 2 weights are not finite"),
        (torch.tensor([[1.0, 1e6]]), "fp16", {}, "1 of 2 weights are not finite in fp16"),
        (torch.ones(2, 2, dtype=torch.int32), "fp32", {}, "only a floating-point matrix"),
        (torch.ones(2), "fp32", {}, "only a floating-point matrix"),
        (torch.ones(2, 256), "int8", {"group": 100}, "a group of 100 columns"),
        (torch.ones(2, 256), "bf16", {"group": 64}, "no scales"),
        (torch.ones(2, 256), "fp16", {"grid": grid(1.0, 256)}, "no scales"),
        (torch.ones(2, 256), "int8", {"grid": grid(1.0, 256, (3, 1))}, r"a grid of \[3, 1\] for 2 rows"),
        (torch.ones(2, 256), "int8", {"grid": grid(1.0, 64, (2, 4)), "group": 128}, "for 64 columns, not 128"),
        (torch.ones(2, 256), "int8", {"grid": grid(1.0, 32, (2, 8))}, "int8 has one for multiples of 64, or a row"),
        (torch.full((2, 9), 0.3), "int8", {"grid": grid(0.2, 9)}, "lie off the grid"),
        (torch.full((2, 9), 0.20001), "int8", {"grid": grid(0.2, 9)}, "lie off the grid"),
        (torch.ones(2, 9), "int8", {"grid": grid(1e-3, 9)}, "codes from 1000 to 1000 about 0, and int8 ends at 127"),
        (torch.ones(2, 0), "fp32", {}, "only a floating-point matrix"),
        (torch.ones(2, 1088), "int8", {"group": 512}, "groups of unlike sizes"),
        (torch.ones(2, 2), "int4", {}, "unknown precision"),
    ],
)
def test_what_cannot_be_encoded(weight, precision, options, said):
    with pytest.raises(Problem, match=said):
        encode(weight, precision, **options)


def test_tiny_weights_have_a_usable_scale():
    codes, scales = encode(torch.full((1, 4), 1e-44), "int8")
    assert (scales > 0).all() and torch.isfinite(decode(codes, scales)).all()
