from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from harness.problems import Problem
from harness.pruning.solvers import _grid
from harness.quantization.grid import spread


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [None, 8])
def test_the_grid_is_that_of_the_formula(sparse, plain, bits, symmetric, group):
    weight, keep, _ = sparse(6, 24)
    grid = spread(weight, bits, symmetric, group)
    codes = grid.encode(weight)
    assert codes.dtype == torch.int8 and int(codes.min()) >= -(2 ** (bits - 1)) and int(codes.max()) < 2 ** (bits - 1)
    expected = plain.rtn(weight, torch.ones_like(keep), bits, symmetric, group)
    off = (grid.decode(codes) - weight).abs()  # not the value itself: the lowest weight may lie between two
    torch.testing.assert_close(off.double(), (expected - weight).abs(), rtol=1e-5, atol=1e-6)
    assert grid.scale.shape == grid.zero.shape == (6, 24 // (group or 24))


@given(
    values=some.lists(some.floats(-1e3, 1e3, width=32), min_size=8, max_size=8),
    bits=some.integers(2, 8),
    symmetric=some.booleans(),
)
def test_zero_is_exact_and_no_value_is_far_off(values, bits, symmetric):
    weight = torch.tensor([[*values[:4], 0.0, *values[4:7]]], dtype=torch.float32)
    grid = spread(weight, bits, symmetric)
    codes = grid.encode(weight)
    rounded = grid.decode(codes)
    assert (rounded[weight == 0] == 0).all() and (grid.decode(grid.zeros(codes)) == 0).all()
    assert ((rounded - weight).abs() <= grid.scale * (0.501 if symmetric else 1.001)).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_grid_is_that_of_sparsegpts_joint_quantisation(sparse, symmetric):
    weight, _, _ = sparse(16, 64)
    ours, theirs = spread(weight, 4, symmetric), _grid.spread(weight, 4, symmetric, "row")
    assert torch.equal(ours.scale, theirs.scale) and torch.equal(ours.zero + 8, theirs.zero)
    assert torch.equal(ours.decode(ours.encode(weight)), theirs.nearest(weight))


def test_a_symmetric_grid_reaches_the_largest_weight_where_none_is_negative():
    weight = torch.tensor([[0.0, 0.5, 1.0]])
    grid = spread(weight, 8)
    assert grid.decode(grid.encode(weight)).max() > 0.99
    assert _grid.spread(weight, 8, True, "row").nearest(weight).max() < 0.51, "the release has mended it"


def test_rows_without_a_weight_stay_zero():
    weight = torch.zeros(2, 8)
    grid = spread(weight, 8, group=4)
    assert (grid.scale > 0).all() and (grid.decode(grid.encode(weight)) == 0).all()


def test_groups_that_do_not_divide_the_inputs_are_a_problem():
    with pytest.raises(Problem, match="20 inputs do not divide into groups of 8"):
        spread(torch.zeros(2, 20), 8, group=8)
