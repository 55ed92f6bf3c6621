from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.patterns import unstructured

GROUPS = ("row", "matrix")
COUNTS = [(100, 0.29, 29), (10, 0.7, 7), (7, 0.5, 3), (3, 0.999, 2), (5, 0, 0)]


def scores_of(rows, columns, levels, seed):
    """Scores with many ties: integers below `levels`."""
    return torch.randint(levels, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()


size = (st.integers(1, 6), st.integers(1, 24))
cases = given(*size, st.integers(1, 9), st.integers(0, 2**31), st.floats(0, 0.999), st.sampled_from(GROUPS))


def test_by_hand():
    scores = torch.tensor([[4.0, 1.0, 3.0, 2.0], [8.0, 7.0, 6.0, 5.0]])
    by_row = unstructured.choose(scores, 0.5, group="row")
    assert by_row.tolist() == [[True, False, True, False], [True, True, False, False]]
    by_matrix = unstructured.choose(scores, 0.5, group="matrix")
    assert by_matrix.tolist() == [[False] * 4, [True] * 4]


def test_of_equal_scores_the_first_columns_go():
    keep = unstructured.choose(torch.ones(2, 4), 0.5, group="row")
    assert keep.tolist() == [[False, False, True, True]] * 2
    assert unstructured.choose(torch.ones(2, 4), 0.5, group="matrix").tolist() == [[False] * 4, [True] * 4]


@pytest.mark.parametrize(("size", "sparsity", "zeros"), COUNTS)
def test_counts_are_the_floor(size, sparsity, zeros):
    assert int((~unstructured.choose(torch.rand(1, size), sparsity, group="row")).sum()) == zeros


@cases
def test_agrees_with_the_slow_version(reference, rows, columns, levels, seed, sparsity, group):
    scores = scores_of(rows, columns, levels, seed)
    expected = reference.unstructured(scores, sparsity, group)
    assert torch.equal(unstructured.choose(scores, sparsity, group=group), expected)


@cases
@pytest.mark.parametrize("as_released", [False, True])
def test_choosing_by_the_mask_gives_the_mask(as_released, rows, columns, levels, seed, sparsity, group):
    keep = unstructured.choose(scores_of(rows, columns, levels, seed), sparsity, group=group, as_released=as_released)
    assert torch.equal(unstructured.choose(keep.float(), sparsity, group=group, as_released=as_released), keep)


def test_scores_are_not_changed():
    scores = torch.rand(4, 8)
    before = scores.clone()
    unstructured.choose(scores, 0.5, group="matrix")
    unstructured.choose(scores, 0.5, group="matrix", as_released=True)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("group", GROUPS)
def test_transposed_scores_are_read_as_they_stand(group, as_released):
    scores = torch.rand(6, 5).T
    expected = unstructured.choose(scores.contiguous(), 0.5, group=group, as_released=as_released)
    assert torch.equal(unstructured.choose(scores, 0.5, group=group, as_released=as_released), expected)


def test_the_papers_group_must_be_replaced_first():
    with pytest.raises(ValueError, match="paper"):
        unstructured.choose(torch.rand(2, 2), 0.5)
    with pytest.raises(ValueError, match="paper"):
        unstructured.fit({"a": 0.4, "b": 0.6}, LAYERS, 0.5)


@cases
def test_as_released_agrees_with_the_slow_version(plain, rows, columns, levels, seed, sparsity, group):
    assume(sparsity > 0)
    scores = scores_of(rows, columns, levels, seed)
    keep = unstructured.choose(scores, sparsity, group=group, as_released=True)
    if group == "row":
        order = scores.sort(dim=1, stable=True).indices[:, : int(columns * sparsity)]
        assert torch.equal(keep, torch.ones_like(keep).scatter_(1, order, False))
    else:
        assert torch.equal(keep, plain.as_released(scores, sparsity))
        assert int((~keep).sum()) > int(rows * columns * sparsity)


def test_as_released_prunes_one_too_many_and_all_ties():
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert unstructured.choose(scores, 0.5, group="matrix", as_released=True).tolist() == [[False] * 3 + [True]]
    assert not unstructured.choose(torch.ones(1, 4), 0.5, group="matrix", as_released=True).any()
    keep = unstructured.choose(torch.rand(1, 100), 0.29, group="row", as_released=True)
    assert int((~keep).sum()) == 28


@pytest.mark.parametrize("group", GROUPS)
def test_as_released_prunes_nothing_at_no_sparsity(group):
    assert unstructured.choose(torch.rand(3, 4), 0.0, group=group, as_released=True).all()


def test_as_released_cannot_prune_everything():
    with pytest.raises(Problem, match="cannot prune at a sparsity of 1"):
        unstructured.choose(torch.rand(3, 4), 1.0, group="matrix", as_released=True)
    assert not unstructured.choose(torch.rand(3, 4), 1.0, group="matrix").any()


@pytest.mark.parametrize("as_released", [False, True])
def test_a_sparsity_beyond_one_is_a_problem(as_released):
    with pytest.raises(Problem, match=r"sparsity of 1\.2 is not between 0 and 1"):
        unstructured.choose(torch.rand(3, 4), 1.2, group="row", as_released=as_released)


LAYERS = {"a": Layer((6, 10), 0, "attention"), "b": Layer((12, 10), 0, "feed_forward")}


def test_fit_by_hand():
    # rows: 10 columns a layer, 6 and 12 weights each; 180 * 0.55 = 99 zeros: 30 + 60 are whole, then b has no room
    rates = {"a": 0.56, "b": 0.545}
    assert unstructured.fit(rates, LAYERS, 0.55, group="row") == {"a": 0.6, "b": 0.5}
    by_weight = unstructured.fit(rates, LAYERS, 0.55, group="matrix")
    assert by_weight == {"a": 34 / 60, "b": 65 / 120}


@given(st.floats(0, 0.9), st.sampled_from(GROUPS), st.booleans())
def test_equal_rates_and_released_ones_stay(rate, group, as_released):
    rates = dict.fromkeys(LAYERS, rate)
    assert unstructured.fit(rates, LAYERS, rate, group=group, as_released=as_released) == rates
    uneven = {"a": 0.513, "b": 0.4935}
    assert unstructured.fit(uneven, LAYERS, 0.5, group=group, as_released=True) == uneven


@given(st.integers(1, 99), st.integers(1, 99), st.sampled_from(GROUPS))
def test_what_is_fitted_is_what_is_chosen(one, two, group):
    rates = {"a": one / 100, "b": two / 100}
    overall = (60 * one + 120 * two) / 18000
    fitted = unstructured.fit(rates, LAYERS, overall, group=group)
    zeros = 0
    for name, layer in LAYERS.items():
        keep = unstructured.choose(torch.rand(layer.shape), fitted[name], group=group)
        assert abs(int((~keep).sum()) - rates[name] * layer.size) < (layer.shape[0] if group == "row" else 1)
        zeros += int((~keep).sum())
    exact = (60 * one + 120 * two) // 100
    assert zeros <= exact and (one == two or exact - zeros < (12 if group == "row" else 1))
