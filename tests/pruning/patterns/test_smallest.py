from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.patterns._smallest import count, smallest


@given(st.integers(1, 10_000), st.integers(0, 100))
def test_whole_percents_are_counted_without_binary_rounding(size, percent):
    assert count(size, percent / 100) == size * percent // 100


@given(st.integers(1, 2**24), st.data())
def test_a_count_over_the_size_gives_the_count_back(size, data):
    number = data.draw(st.integers(0, size))
    assert count(size, number / size) == number


@pytest.mark.parametrize("sparsity", [-0.01, 1.01, float("nan")])
def test_what_is_no_fraction_is_refused(sparsity):
    with pytest.raises(Problem, match="is not between 0 and 1"):
        count(10, sparsity)


KINDS = (torch.bool, torch.bfloat16, torch.float32, torch.float64)


@given(
    st.integers(1, 5), st.integers(1, 20), st.integers(1, 4), st.sampled_from(KINDS), st.integers(0, 2**31), st.data()
)
def test_exact_count_and_lowest_first(rows, columns, levels, kind, seed, data):
    number = data.draw(st.integers(0, columns))
    scores = torch.randint(levels, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(kind)
    gone = smallest(scores, number)
    expected = torch.zeros_like(gone).scatter_(1, scores.sort(dim=1, stable=True).indices[:, :number], True)
    assert torch.equal(gone, expected)
