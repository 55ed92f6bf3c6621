from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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
def test_choosing_by_the_mask_gives_the_mask(rows, columns, levels, seed, sparsity, group):
    keep = unstructured.choose(scores_of(rows, columns, levels, seed), sparsity, group=group)
    assert torch.equal(unstructured.choose(keep.float(), sparsity, group=group), keep)


def test_scores_are_not_changed():
    scores = torch.rand(4, 8)
    before = scores.clone()
    unstructured.choose(scores, 0.5, group="matrix")
    assert torch.equal(scores, before)


def test_transposed_scores_are_read_as_they_stand():
    scores = torch.rand(6, 5).T
    expected = unstructured.choose(scores.contiguous(), 0.5, group="matrix")
    assert torch.equal(unstructured.choose(scores, 0.5, group="matrix"), expected)


def test_the_papers_group_must_be_replaced_first():
    with pytest.raises(ValueError, match="paper"):
        unstructured.choose(torch.rand(2, 2), 0.5)
