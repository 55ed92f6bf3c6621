from __future__ import annotations

import pytest
import torch

from harness.problems import Problem
from harness.pruning.criteria import sparsegpt, wanda
from harness.pruning.patterns import unstructured


@pytest.mark.parametrize("damping", [0.01, 0.3])
def test_agrees_with_the_slow_version(plain, correlated, damping):
    weight, x = correlated(5, 12)
    gram = x.T @ x / len(x)
    scores = sparsegpt.score(weight, gram, damping=damping)
    torch.testing.assert_close(scores, plain.sparsegpt(weight, gram, damping), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sparsegpt.score(weight, gram * 64, damping=damping), scores * 64, rtol=1e-4, atol=1e-6)


def test_inputs_that_were_never_active_score_zero(plain, correlated):
    weight, x = correlated(4, 8)
    x[:, [2, 5]] = 0
    gram = x.T @ x
    scores = sparsegpt.score(weight, gram)
    assert (scores[:, [2, 5]] == 0).all() and (scores[:, [0, 1, 3, 4, 6, 7]] > 0).all()
    torch.testing.assert_close(scores, plain.sparsegpt(weight, gram, 0.01), rtol=1e-4, atol=1e-6)


def test_with_a_diagonal_gram_it_is_wanda(correlated):
    weight, _ = correlated(6, 10)
    norm = torch.rand(10) + 0.1
    scores = sparsegpt.score(weight, norm.square().diag(), damping=0.0)
    torch.testing.assert_close(scores, wanda.score(weight, norm).square())
    by_wanda = unstructured.choose(wanda.score(weight, norm), 0.5, group="row")
    assert torch.equal(unstructured.choose(scores, 0.5, group="row"), by_wanda)


def test_a_gram_that_needs_more_damping_than_asked_is_a_problem():
    x = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(Problem, match="cannot be factorised with a damping of 0"):
        sparsegpt.score(torch.randn(3, 16), x.T @ x, damping=0.0)
