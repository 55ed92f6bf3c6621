from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.pruning.criteria import wanda
from harness.pruning.patterns import nm, unstructured
from harness.pruning.solvers import least_squares

ROW = partial(unstructured.choose, group="row")


def gram_of(x):
    return x.T @ x / len(x)


def test_by_hand():
    # Wanda's score of column 1 is the higher. Alone it does best with w1 = (3 * 2 + 1 * 1) / 2 = 3.5.
    weight, gram = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    solved = least_squares.solve(weight, gram, ROW, 0.5, damping=0.0)
    assert solved.keep.tolist() == [[False, True]]
    torch.testing.assert_close(solved.weight, torch.tensor([[0.0, 3.5]]))


@pytest.mark.parametrize("choose", [ROW, partial(nm.choose, n=2, m=4), partial(unstructured.choose, group="matrix")])
def test_solves_each_rows_normal_equations(correlated, plain, choose):
    weight, x = correlated(9, 24)
    solved = least_squares.solve(weight, gram_of(x), choose, 0.5)
    assert torch.equal(solved.keep, choose(wanda.score(weight, x.square().mean(dim=0).sqrt()), 0.5))
    expected = plain.least_squares(weight, gram_of(x), solved.keep)
    torch.testing.assert_close(solved.weight.double(), expected, rtol=1e-3, atol=1e-4)
    assert 1 < solved.facts["steps"] < 100


@settings(max_examples=30, derandomize=True)
@given(st.integers(1, 8), st.integers(1, 40), st.floats(0, 0.99), st.integers(0, 12), st.integers(0, 2**31))
def test_every_step_brings_no_row_farther_from_its_outputs(rows, columns, sparsity, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(rows, columns, generator=generator), torch.randn(2 * columns, columns, generator=generator)
    few, more = (
        least_squares.solve(weight, gram_of(x), ROW, sparsity, steps=n, tolerance=0.0, damping=0.0)
        for n in (max(steps, 1), steps + 4)
    )
    error = [(x @ (weight - each.weight).T).square().sum(dim=0) for each in (few, more)]
    assert (error[0] <= (x @ (weight * ~few.keep).T).square().sum(dim=0) * 1.001 + 1e-6).all()
    assert (error[1] <= error[0] * 1.001 + 1e-6).all()
    assert (more.weight[~more.keep] == 0).all() and more.weight.isfinite().all()


def test_ends_when_every_row_is_good_enough(correlated):
    weight, x = correlated(9, 24)
    steps = [least_squares.solve(weight, gram_of(x), ROW, 0.5, tolerance=t).facts["steps"] for t in (1e-1, 1e-5, 0.0)]
    assert steps[0] < steps[1] < steps[2] == 100


def test_inputs_that_were_never_active_disturb_no_other(correlated):
    weight, x = correlated(6, 12)
    x[:, 5] = 0
    for damping in (0.0, 0.01):
        assert least_squares.solve(weight, gram_of(x), ROW, 0.25, damping=damping).weight.isfinite().all()
    none = least_squares.solve(weight, torch.zeros(12, 12), ROW, 0.25)
    assert none.weight.isfinite().all() and int((~none.keep).sum()) == 18
