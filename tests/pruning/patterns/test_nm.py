from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.patterns import nm


def test_by_hand_n_is_what_stays():
    scores = torch.tensor([[4.0, 1.0, 3.0, 2.0, 5.0, 8.0, 7.0, 6.0]])
    assert nm.choose(scores, 0.5, n=2, m=4).tolist() == [[True, False, True, False, False, True, True, False]]
    assert nm.choose(scores, 0.75, n=1, m=4).tolist() == [[True, False, False, False, False, True, False, False]]
    assert nm.choose(scores, 0.25, n=3, m=4).tolist() == [[True, False, True, True, False, True, True, True]]


def test_of_equal_scores_the_first_columns_go():
    assert nm.choose(torch.ones(1, 4), 0.5, n=2, m=4).tolist() == [[False, False, True, True]]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 16), st.integers(1, 4), st.integers(0, 2**31), st.data())
def test_agrees_with_the_slow_version(reference, rows, groups, m, levels, seed, data):
    n = data.draw(st.integers(1, m))
    scores = torch.randint(levels, (rows, groups * m), generator=torch.Generator().manual_seed(seed)).float()
    keep = nm.choose(scores, 1 - n / m, n=n, m=m)
    assert torch.equal(keep, reference.nm(scores, n, m))
    assert (keep.view(rows, groups, m).sum(-1) == n).all()
    assert torch.equal(nm.choose(keep.float(), 1 - n / m, n=n, m=m), keep)


@pytest.mark.parametrize(
    ("options", "sparsity", "width", "message"),
    [
        ({"n": 2, "m": 4}, 0.5, 6, "6 inputs do not divide into groups of 4"),
        ({"n": 5, "m": 4}, 0.5, 8, "5:4 cannot keep"),
        ({"n": 0, "m": 4}, 1.0, 8, "0:4 cannot keep"),
        ({"n": 2, "m": 4}, 0.6, 8, "2:4 is a sparsity of 0.5, not 0.6"),
    ],
)
def test_what_cannot_be_is_refused(options, sparsity, width, message):
    with pytest.raises(Problem, match=message):
        nm.choose(torch.rand(2, width), sparsity, **options)
