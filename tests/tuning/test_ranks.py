from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.tuning import ranks

ERRORS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40)


def test_equal_errors_have_equal_ranks():
    assert ranks.allocate([0.3] * 8, 6) == [6] * 8


@given(ERRORS, st.integers(1, 16))
def test_ranks_keep_to_their_bounds_and_the_exact_budget_is_met(errors, mean):
    for budget in ("released", "exact"):
        found = ranks.allocate(errors, mean, budget)
        assert all(ranks.LEAST <= rank <= ranks.MOST for rank in found)
    assert sum(found) == mean * len(errors)


@given(ERRORS, st.integers(1, 16))
def test_a_larger_error_never_has_a_rank_smaller_by_more_than_a_tie(errors, mean):
    found = np.array(ranks.allocate(errors, mean))
    order = np.argsort(errors, kind="stable")
    assert (np.diff(found[order]) >= -1).all()


def test_the_released_correction_passes_once():
    errors = [1e-6] * 32
    errors[20] = 1.0
    assert sum(ranks.allocate(errors, 10)) == 78 and sum(ranks.allocate(errors, 10, "exact")) == 320


def test_no_error_is_a_problem():
    with pytest.raises(Problem, match="no block's outputs differ"):
        ranks.allocate([0.0, 0.0], 6)
