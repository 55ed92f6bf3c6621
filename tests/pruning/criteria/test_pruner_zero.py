from __future__ import annotations

import pytest
import torch

from harness.problems import Problem
from harness.pruning.criteria import pruner_zero


def test_by_hand():
    scores = pruner_zero.score(torch.tensor([[-2.0, 1.0, 3.0]]), torch.tensor([[1.0, 2.0, 5.0]]))
    assert scores.tolist() == [[0.0, 0.25, 9.0]]


def test_agrees_with_the_slow_version(plain, correlated):
    weight, _ = correlated(4, 6)
    gradients = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    ours = pruner_zero.score(weight, gradients.square().mean(0).sqrt())
    torch.testing.assert_close(ours, plain.pruner_zero(weight, gradients))


def test_a_gradient_that_is_the_same_everywhere_is_a_problem():
    with pytest.raises(Problem, match="every weight has the same size, 0"):
        pruner_zero.score(torch.ones(2, 2), torch.zeros(2, 2))
