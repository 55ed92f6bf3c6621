from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation._tail import _mid, _peak, alpha


def diagonal(values):
    """A matrix with these eigenvalues of W^T W."""
    return torch.diag(torch.tensor(values, dtype=torch.float64).sqrt()).float()


@settings(derandomize=True)  # float32 and float64 may disagree on which of two near-equal fits is best
@given(st.integers(4, 60), st.integers(4, 60), st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_agrees_with_the_slow_version(plain, rows, columns, seed, scale):
    weight = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    eigenvalues = torch.linalg.svdvals(weight).square().sort().values.tolist()
    assert alpha(weight, "mid") == pytest.approx(plain.hill(eigenvalues, len(eigenvalues) // 2), rel=1e-3)
    assert alpha(weight, "peak") == pytest.approx(plain.peak(eigenvalues), rel=1e-3)


def test_a_power_law_is_found_again():
    # quantiles of p(x) ~ x^-2.5 from 1 on
    values = [(1 - (k + 0.5) / 2000) ** (-1 / 1.5) for k in range(2000)]
    eigenvalues = torch.tensor(values)
    assert float(_peak(eigenvalues)) == pytest.approx(2.5, abs=0.02)
    assert float(_mid(eigenvalues)) == pytest.approx(2.5, abs=0.02)


@pytest.mark.parametrize("xmin", ["peak", "mid"])
@pytest.mark.parametrize("values", [[4.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
def test_no_tail_is_a_problem(values, xmin):
    with pytest.raises(Problem, match="its spectrum"):
        alpha(diagonal(values), xmin)


def test_a_weight_that_is_not_finite_is_a_problem():
    with pytest.raises(Problem, match="its spectrum"):
        alpha(torch.full((4, 4), torch.inf), "mid")
