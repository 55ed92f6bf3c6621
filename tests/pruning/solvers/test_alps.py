from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.pruning.patterns import nm, unstructured
from harness.pruning.patterns._smallest import count
from harness.pruning.solvers import alps, least_squares, sparsegpt

MATRIX = partial(unstructured.choose, group="matrix")
ROW = partial(unstructured.choose, group="row")
HALF = partial(nm.choose, n=2, m=4)


def gram_of(x):
    return x.T @ x / len(x)


@pytest.mark.parametrize("seed", range(6))
def test_finds_nearly_the_best_support_of_a_row(correlated, plain, seed):
    weight, x = correlated(1, 10, seed=seed)
    gram = gram_of(x)
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(10)
    best, _ = plain.best_support(weight[0], gram, 5)
    ours = plain.error(weight, alps.solve(weight, gram, MATRIX, 0.5).weight, damped)
    worst = plain.error(weight, torch.zeros_like(weight), damped)
    assert best - 1e-6 <= ours < best + 0.05 * worst


@pytest.mark.parametrize(("choose", "period"), [(MATRIX, None), (HALF, 4)])
def test_leaves_less_error_than_sparsegpt_and_than_least_squares(correlated, plain, choose, period):
    weight, x = correlated(64, 96)
    errors = [
        plain.error(weight, solved.weight, gram_of(x))
        for solved in (
            alps.solve(weight, gram_of(x), choose, 0.5),
            least_squares.solve(weight, gram_of(x), choose, 0.5),
            sparsegpt.solve(weight, gram_of(x), choose, 0.5, period),
        )
    ]
    assert errors[0] < 0.95 * min(errors[1:])


def test_weights_are_the_best_on_the_support_given_enough_steps(correlated, plain):
    weight, x = correlated(12, 24)
    solved = alps.solve(weight, gram_of(x), MATRIX, 0.5, steps=100)
    expected = plain.least_squares(weight, gram_of(x), solved.keep)
    torch.testing.assert_close(solved.weight.double(), expected, rtol=1e-3, atol=1e-4)
    rough = alps.solve(weight, gram_of(x), MATRIX, 0.5, steps=0)
    assert torch.equal(rough.keep, solved.keep) and not torch.allclose(rough.weight.double(), expected, atol=1e-2)


def test_with_independent_inputs_it_moves_no_weight_and_is_nearly_weighted_magnitude(correlated, plain):
    weight, _ = correlated(6, 10)
    gram = torch.arange(1.0, 11.0).diag()
    solved = alps.solve(weight, gram, MATRIX, 0.5, damping=0.0)
    torch.testing.assert_close(solved.weight, weight * solved.keep, rtol=1e-4, atol=1e-5)
    best = plain.error(weight, weight * MATRIX(weight.square() * gram.diagonal(), 0.5), gram)
    assert plain.error(weight, solved.weight, gram) < 1.1 * best


def test_a_support_that_never_changes_asks_for_a_smaller_penalty():
    weight = torch.tensor([[0.01, 1.0, 0.02, 2.0]])
    solved = alps.solve(weight, torch.eye(4), MATRIX, 0.5)
    assert solved.keep.tolist() == [[False, True, False, True]] and solved.facts["rho"] < 0.1


@settings(max_examples=30, derandomize=True)
@given(
    st.integers(1, 8), st.integers(1, 8), st.sampled_from(["row", "matrix", "nm"]), st.floats(0, 0.99), st.integers()
)
def test_any_pattern_has_its_counts_and_pruned_weights_are_zero(rows, groups, pattern, sparsity, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    columns = 4 * groups
    weight, x = torch.randn(rows, columns, generator=generator), torch.randn(2 * columns, columns, generator=generator)
    choose = {"row": ROW, "matrix": MATRIX, "nm": HALF}[pattern]
    sparsity = 0.5 if pattern == "nm" else sparsity
    solved = alps.solve(weight, gram_of(x), choose, sparsity)
    zeros = {
        "row": rows * count(columns, sparsity),
        "matrix": count(rows * columns, sparsity),
        "nm": 2 * groups * rows,
    }
    assert int((~solved.keep).sum()) == zeros[pattern]
    assert torch.equal(choose(solved.keep.float(), sparsity), solved.keep)
    assert (solved.weight[~solved.keep] == 0).all() and solved.weight.isfinite().all()


def test_scale_of_the_gram_matrix_does_not_matter(correlated):
    weight, x = correlated(8, 32)
    one, other = (alps.solve(weight, gram_of(x) * scale, MATRIX, 0.5) for scale in (1, 1024.0))
    assert torch.equal(one.keep, other.keep)
    torch.testing.assert_close(one.weight, other.weight)


def test_inputs_are_not_changed_and_the_dtype_is_kept(correlated):
    weight, x = correlated(4, 16)
    weight, gram = weight.half(), gram_of(x)
    before = weight.clone(), gram.clone()
    solved = alps.solve(weight, gram, MATRIX, 0.5)
    assert solved.weight.dtype == torch.float16
    assert torch.equal(weight, before[0]) and torch.equal(gram, before[1])
    assert torch.equal(alps.solve(weight, gram, MATRIX, 0.0).weight, weight), "nothing to prune, nothing to change"


def test_inputs_that_were_never_active_do_no_harm(correlated):
    weight, x = correlated(6, 12)
    x[:, 5] = 0
    for damping in (0.0, 0.01):
        solved = alps.solve(weight, gram_of(x), MATRIX, 0.25, damping=damping)
        assert solved.weight.isfinite().all() and (damping or not solved.keep[:, 5].any())
    assert alps.solve(weight, torch.zeros(12, 12), MATRIX, 0.25).weight.isfinite().all()


def test_no_more_iterations_than_asked(correlated):
    weight, x = correlated(6, 12)
    assert alps.solve(weight, gram_of(x), MATRIX, 0.5, iterations=2).facts["iterations"] == 2
