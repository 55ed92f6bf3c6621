from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.patterns import nm, unstructured
from harness.pruning.patterns._smallest import count
from harness.pruning.solvers import sparsegpt
from harness.pruning.solvers._grid import spread

MATRIX = partial(unstructured.choose, group="matrix")
CASES = [(6, 20, 128, 0.5), (5, 24, 8, 0.7), (3, 21, 16, 0.34)]


def gram_of(x):
    return x.T @ x / len(x)


def test_by_hand():
    # H = [[2, 1], [1, 1]] without damping: inv(H) = [[1, -1], [-1, 2]], and with column 0 gone inv([1]) = [1].
    # Scores w0^2 / 1 = 1 and w1^2 / 1 = 9: w0 = 1 goes, and w1 takes over 3 - 1 * (-1) / 1 = 4.
    weight, gram = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    solved = sparsegpt.solve(weight, gram, MATRIX, 0.5, damping=0.0)
    assert solved.keep.tolist() == [[False, True]]
    torch.testing.assert_close(solved.weight, torch.tensor([[0.0, 4.0]]))


def test_with_independent_inputs_kept_weights_stay_and_the_choice_is_by_weighted_magnitude(correlated):
    weight, _ = correlated(6, 10)
    diagonal = torch.arange(1.0, 11.0)
    solved = sparsegpt.solve(weight, diagonal.diag(), MATRIX, 0.5, damping=0.0)
    assert torch.equal(solved.keep, MATRIX(weight.square() * diagonal, 0.5))
    torch.testing.assert_close(solved.weight, weight * solved.keep)


@pytest.mark.parametrize(("rows", "columns", "slab", "sparsity"), CASES)
def test_agrees_with_surgery_column_by_column(correlated, reference, rows, columns, slab, sparsity):
    weight, x = correlated(rows, columns, seed=columns)
    solved = sparsegpt.solve(weight, gram_of(x), MATRIX, sparsity, block=slab)
    expected, keep = reference.sparsegpt(weight, gram_of(x), sparsity, slab=slab)
    assert torch.equal(solved.keep, keep)
    torch.testing.assert_close(solved.weight.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "m", "slab"), [(2, 4, 128), (1, 4, 8), (4, 8, 12), (3, 6, 128)])
def test_chooses_each_group_on_compensated_weights(correlated, reference, n, m, slab):
    weight, x = correlated(4, 24, seed=n)
    solved = sparsegpt.solve(weight, gram_of(x), partial(nm.choose, n=n, m=m), 1 - n / m, m, block=slab)
    expected, keep = reference.sparsegpt(weight, gram_of(x), 1 - n / m, n=n, m=m)
    assert torch.equal(solved.keep, keep)
    torch.testing.assert_close(solved.weight.double(), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=40)
@given(st.integers(1, 8), st.integers(1, 40), st.floats(0, 0.99), st.integers(1, 32), st.integers(0, 2**31))
def test_every_slab_has_the_exact_count_and_pruned_weights_are_zero(rows, columns, sparsity, slab, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(rows, columns, generator=generator), torch.randn(2 * columns, columns, generator=generator)
    solved = sparsegpt.solve(weight, gram_of(x), MATRIX, sparsity, block=slab)
    for keep in solved.keep.split(solved.slab, dim=1):
        assert int((~keep).sum()) == count(keep.numel(), sparsity)
    assert (solved.weight[~solved.keep] == 0).all() and solved.weight.isfinite().all()


def test_compensation_lowers_the_output_error(correlated):
    weight, x = correlated(64, 96)
    solved = sparsegpt.solve(weight, gram_of(x), MATRIX, 0.5)
    error = (x @ (weight - solved.weight).T).norm()
    assert error < 0.9 * (x @ (weight - weight * solved.keep).T).norm()


def test_scale_of_the_gram_matrix_does_not_matter(correlated):
    weight, x = correlated(8, 32)
    x[:, [3, 7]] = 0
    one, other = (sparsegpt.solve(weight, gram_of(x) * scale, MATRIX, 0.5) for scale in (1, 1024.0))
    assert torch.equal(one.keep, other.keep)
    torch.testing.assert_close(one.weight, other.weight)


def test_dead_inputs_go_first_and_no_further_than_asked(correlated):
    weight, x = correlated(12, 32)
    x[:, ::4] = 0
    gram, choose = x.T @ x / len(x), partial(unstructured.choose, group="row")
    for sparsity, zeros in ((0.0, 0), (0.125, 4), (0.25, 8)):
        solved = sparsegpt.solve(weight, gram, choose, sparsity)
        assert int((solved.weight == 0).sum()) == int((~solved.keep).sum()) == 12 * zeros
        assert (~solved.keep[:, ::4]).sum() == 12 * zeros and solved.facts["dead_inputs"] == 8
        assert torch.equal(solved.weight[:, 1::4], weight[:, 1::4])
    released = sparsegpt.solve(weight, gram, choose, 0.0, length=128, as_released=True)
    assert (released.weight[:, ::4] == 0).all()


def test_a_dead_input_loses_its_weights_and_disturbs_no_other(correlated):
    weight, x = correlated(6, 12)
    x[:, 5] = 0
    solved = sparsegpt.solve(weight, gram_of(x), MATRIX, 0.25, block=12)
    assert (solved.weight[:, 5] == 0).all() and not solved.keep[:, 5].any()
    alive = [c for c in range(12) if c != 5]
    rest = sparsegpt.solve(weight[:, alive], gram_of(x[:, alive]), MATRIX, (18 - 6) / 66)
    assert torch.equal(rest.keep, solved.keep[:, alive])
    torch.testing.assert_close(rest.weight, solved.weight[:, alive])


def test_inputs_are_not_changed_and_the_dtype_is_kept(correlated):
    weight, x = correlated(4, 16)
    weight, gram = weight.half(), gram_of(x)
    before = weight.clone(), gram.clone()
    solved = sparsegpt.solve(weight, gram, MATRIX, 0.5)
    assert solved.weight.dtype == torch.float16 and solved.weight.is_contiguous() and solved.keep.is_contiguous()
    assert torch.equal(weight, before[0]) and torch.equal(gram, before[1])


def test_the_factor_is_that_of_the_inverse(correlated):
    gram = gram_of(correlated(1, 24)[1])
    factor, dead, damping = sparsegpt.inverse_factor(gram, 0.01)
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(24)
    torch.testing.assert_close(factor.T @ factor, torch.linalg.inv(damped), rtol=1e-4, atol=1e-5)
    assert torch.equal(factor, factor.triu()) and (factor.diagonal() > 0).all() and not dead.any() and damping == 0.01


def test_a_failed_factorisation_raises_the_damping_and_says_so(correlated):
    weight, x = correlated(4, 8)
    gram = gram_of(x)
    gram = gram - 0.05 * gram.diagonal().mean() * torch.eye(8) - torch.linalg.eigvalsh(gram)[0] * torch.eye(8)
    solved = sparsegpt.solve(weight, gram, MATRIX, 0.5, damping=0.01)
    assert solved.facts["damping"] == pytest.approx(0.1)


def test_a_matrix_that_no_damping_saves_is_a_problem(correlated):
    weight, _ = correlated(4, 8)
    with pytest.raises(Problem, match="cannot be factorised, even with a damping of 10"):
        sparsegpt.solve(weight, torch.ones(8, 8) - 100 * torch.eye(8).roll(1, 0), MATRIX, 0.5)


def test_a_width_that_the_groups_do_not_divide_is_a_problem(correlated):
    weight, x = correlated(4, 10)
    with pytest.raises(Problem, match="10 inputs do not divide into groups of 4"):
        sparsegpt.solve(weight, gram_of(x), nm.choose, 0.5, 4)


@pytest.mark.parametrize(("bits", "symmetric"), [(1, True), (2, False), (3, True), (4, False)])
@pytest.mark.parametrize("scale", ["row", "matrix"])
def test_quantises_in_the_same_sweep(correlated, plain, bits, symmetric, scale):
    weight, x = correlated(6, 20, seed=bits)
    options = {"bits": bits, "symmetric": symmetric, "scale": scale}
    solved = sparsegpt.solve(weight, gram_of(x), MATRIX, 0.5, **options)
    expected = plain.quantised_sparsegpt(weight, gram_of(x), solved.keep, bits, symmetric, scale == "matrix")
    torch.testing.assert_close(solved.weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert solved.facts["bits"] == bits and (solved.weight[~solved.keep] == 0).all()
    assert "bits" not in sparsegpt.solve(weight, gram_of(x), MATRIX, 0.5).facts


def test_every_group_is_chosen_on_weights_that_make_up_for_rounding_too(correlated):
    weight, x = correlated(16, 32)
    solved = sparsegpt.solve(weight, gram_of(x), nm.choose, 0.5, 4, bits=3)
    assert torch.equal(nm.choose(solved.keep.float(), 0.5), solved.keep)
    plain = sparsegpt.solve(weight, gram_of(x), nm.choose, 0.5, 4)
    assert torch.equal(solved.keep[:, :4], plain.keep[:, :4]) and not torch.equal(solved.keep, plain.keep)
    assert max(len(row.unique()) for row in solved.weight) <= 8


@pytest.mark.parametrize("scale", ["row", "matrix"])
def test_rows_of_zeros_are_quantised_to_zeros(correlated, scale):
    weight, x = correlated(4, 16)
    weight[1] = 0
    solved = sparsegpt.solve(weight, gram_of(x), MATRIX, 0.25, bits=4, scale=scale)
    assert (solved.weight[1] == 0).all() and solved.weight.isfinite().all() and solved.weight.count_nonzero()


def test_more_bits_leave_less_error_and_rounding_alone_more(correlated):
    weight, x = correlated(64, 96)
    error = [
        (x @ (weight - sparsegpt.solve(weight, gram_of(x), MATRIX, 0.5, bits=bits).weight).T).norm()
        for bits in (2, 3, 4, 8, None)
    ]
    assert error == sorted(error, reverse=True) and error[-2] < 1.01 * error[-1]
    pruned = sparsegpt.solve(weight, gram_of(x), MATRIX, 0.5).weight
    after = spread(pruned, 3, False, "row").nearest(pruned)
    assert error[1] < 0.95 * (x @ (weight - after).T).norm()


@pytest.mark.parametrize("tokens", [128, 512, 2048])
def test_as_released_counts_dead_inputs_in_the_damping(correlated, tokens):
    weight, x = correlated(6, 24)
    alive, same = (
        sparsegpt.solve(weight, gram_of(x), MATRIX, 0.5, length=128, as_released=r).weight for r in (False, True)
    )
    torch.testing.assert_close(alive, same, rtol=1e-4, atol=1e-5)
    x[:, :12] = 0
    gram = gram_of(x)
    ours, theirs = (sparsegpt.inverse_factor(gram, 0.01, released=r)[0] for r in (None, 2.0 * tokens))
    mean = (gram.diagonal().sum() + 12 / (2 * tokens)) / 24
    damped = gram + 0.01 * mean * torch.eye(24)
    torch.testing.assert_close(
        theirs[12:, 12:].T @ theirs[12:, 12:], torch.linalg.inv(damped[12:, 12:]), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(theirs.diagonal()[:12], (1 / (2 * tokens) + 0.01 * mean).rsqrt().expand(12))
    assert not torch.allclose(ours, theirs, rtol=1e-2)


@pytest.mark.parametrize("released", [None, 256.0])
def test_a_failure_in_either_way_to_the_factor_raises_the_damping(correlated, released):
    gram = gram_of(correlated(4, 8)[1])
    gram = gram - 0.05 * gram.diagonal().mean() * torch.eye(8) - torch.linalg.eigvalsh(gram)[0] * torch.eye(8)
    assert sparsegpt.inverse_factor(gram, 0.01, released)[2] == pytest.approx(0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("choose", "period"), [(MATRIX, None), (nm.choose, 4)])
def test_cuda_agrees_with_the_cpu(correlated, choose, period):
    weight, x = correlated(96, 256)
    here = sparsegpt.solve(weight, gram_of(x), choose, 0.5, period)
    there = sparsegpt.solve(weight.cuda(), gram_of(x).cuda(), choose, 0.5, period)
    assert there.weight.is_cuda and (there.keep.cpu() == here.keep).float().mean() > 0.999
    same = here.keep & there.keep.cpu()
    torch.testing.assert_close(there.weight.cpu()[same], here.weight[same], rtol=1e-2, atol=1e-2)
