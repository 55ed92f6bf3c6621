from __future__ import annotations

from functools import partial

import pytest
import torch

from harness.problems import Problem
from harness.pruning.patterns import nm, unstructured
from harness.pruning.solvers import sparsegpt
from harness.quantization.grid import spread
from harness.quantization.rounding import gptq, rtn

MATRIX = partial(unstructured.choose, group="matrix")


def gram_of(x):
    return x.T @ x / len(x)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize(("symmetric", "group", "order"), [(True, None, False), (False, 8, False), (True, 8, True)])
def test_is_the_optimal_brain_surgeon_column_by_column(sparse, plain, sparsity, bits, symmetric, group, order):
    weight, keep, x = sparse(6, 24, sparsity, seed=bits)
    gram = gram_of(x)
    turns = gram.diagonal().argsort(descending=True) if order else None
    expected = plain.gptq(weight, keep, gram, bits, symmetric, group, turns.tolist() if order else None)
    grid = spread(weight, bits, symmetric, group)
    values = grid.decode(gptq.round(weight, keep, grid, gram, order=order).codes)
    torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-6)
    assert (values[~keep] == 0).all()


@pytest.mark.parametrize("block", [1, 7, 32, 500])
def test_the_width_of_a_block_changes_nothing(sparse, block):
    weight, keep, x = sparse(10, 32)
    grid = spread(weight, 4)
    codes = [gptq.round(weight, keep, grid, gram_of(x), block=each).codes for each in (128, block)]
    assert torch.equal(*codes)


@pytest.mark.parametrize(("choose", "period"), [(MATRIX, None), (nm.choose, 4)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_on_dense_weights_and_sparsegpts_mask_it_is_sparsegpts_joint_sweep(sparse, choose, period, symmetric):
    weight, _, x = sparse(24, 64, 0.0)
    gram = gram_of(x)
    joint = sparsegpt.solve(weight, gram, choose, 0.5, period, bits=4, symmetric=symmetric)
    grid = spread(weight, 4, symmetric)
    values = grid.decode(gptq.round(weight, joint.keep, grid, gram).codes)
    assert (values == joint.weight).float().mean() > 0.999
    torch.testing.assert_close(values, joint.weight, rtol=1e-5, atol=2 * float(grid.scale.max()))


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("bits", [3, 8])
def test_leaves_less_error_than_rounding_to_nearest(sparse, plain, sparsity, bits):
    weight, keep, x = sparse(48, 96, sparsity)
    gram, grid = gram_of(x), spread(weight, bits)
    nearest = plain.error(weight, grid.decode(rtn.round(weight, keep, grid).codes), gram)
    assert plain.error(weight, grid.decode(gptq.round(weight, keep, grid, gram).codes), gram) < 0.95 * nearest


def test_inputs_that_are_independent_leave_nothing_to_make_up_for(sparse):
    weight, keep, _ = sparse()
    grid = spread(weight, 4)
    codes = gptq.round(weight, keep, grid, torch.eye(32)).codes
    assert torch.equal(codes, rtn.round(weight, keep, grid).codes)


def test_a_dead_input_is_rounded_and_counted(sparse):
    weight, keep, x = sparse()
    x[:, 5] = 0
    grid = spread(weight, 8)
    rounded = gptq.round(weight, keep, grid, gram_of(x))
    assert rounded.facts == {"damping": 0.01, "dead_inputs": 1}
    assert torch.equal(rounded.codes[:, 5], rtn.round(weight, keep, grid).codes[:, 5])


def test_a_gram_matrix_that_cannot_be_factorised_is_a_problem(sparse):
    weight, keep, _ = sparse(4, 8)
    with pytest.raises(Problem, match="cannot be factorised"):
        gptq.round(weight, keep, spread(weight, 4), torch.ones(8, 8) - 100 * torch.eye(8).roll(1, 0))
