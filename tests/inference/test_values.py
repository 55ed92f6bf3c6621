from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.inference.values import decode, encode, group_size, sums
from harness.problems import Problem


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


def test_a_grid_that_is_given_is_kept():
    codes = torch.randint(-100, 101, (6, 64), dtype=torch.int8)
    scales = torch.rand(6, 1) + 0.1
    again, same = encode(decode(codes, scales), "int8", scales=scales)
    assert torch.equal(again, codes) and torch.equal(same, scales)


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
        (torch.ones(2, 256), "int8", {"scales": torch.zeros(2, 1)}, "should be positive"),
        (torch.full((2, 9), 0.3), "int8", {"scales": torch.full((2, 1), 0.2)}, "do not lie on the grid"),
        (torch.ones(2, 9), "int8", {"scales": torch.full((2, 1), 1e-3)}, "do not lie on the grid"),
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
