from __future__ import annotations

import gc

import pytest
import torch

from harness.pruning.solvers import _inverse


def moments(columns, seed=0):
    x = torch.randn(4 * columns, columns, generator=torch.Generator().manual_seed(seed))
    return x.T @ x / len(x)


@pytest.mark.parametrize("columns", [1, 4, 5, 13])
def test_the_factor_by_panels_is_that_of_the_inverse(monkeypatch, columns):
    monkeypatch.setattr(_inverse, "_PANEL", 4)
    gram = moments(columns)
    factor, dead, damping = _inverse.inverse_factor(gram, 0.01)
    damped = gram.double() + 0.01 * gram.diagonal().mean() * torch.eye(columns)
    assert torch.equal(factor, factor.triu()) and not dead.any() and damping == 0.01
    torch.testing.assert_close(
        factor.double(), torch.linalg.cholesky(damped.inverse(), upper=True), rtol=1e-4, atol=1e-5
    )


def test_layers_that_share_a_matrix_share_its_factor_until_it_changes_or_goes(monkeypatch):
    made, real = [], _inverse.factorise
    monkeypatch.setattr(_inverse, "factorise", lambda *given: made.append(given[1:]) or real(*given))
    gram = moments(6)
    first, again = _inverse.inverse_factor(gram, 0.01), _inverse.inverse_factor(gram, 0.01)
    assert first is again and len(made) == 1
    _inverse.inverse_factor(gram, 0.1)
    _inverse.inverse_factor(gram, 0.1, released=256.0)
    gram.mul_(2)
    doubled, _, _ = _inverse.inverse_factor(gram, 0.01)
    torch.testing.assert_close(doubled * 2**0.5, first[0])
    other = gram.clone()
    _inverse.inverse_factor(other, 0.01)
    _inverse.inverse_factor(other, 0.01, released=256.0)
    _inverse.inverse_factor(other, 0.01, released=4096.0)
    assert made == [(0.01, None), (0.1, None), (0.1, 256.0), *[(0.01, None)] * 2, (0.01, 256.0), (0.01, 4096.0)]
    del other
    gc.collect()
    assert _inverse._last is None
