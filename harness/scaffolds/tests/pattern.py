"""New method: masks worked by hand."""

from __future__ import annotations

import torch

from harness.pruning.patterns import new_method


def test_a_case_worked_by_hand():
    """The two highest scores of each row stay; of equal scores the first columns go."""
    scores = torch.tensor([[4.0, 1.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    keep = [[True, False, True, False], [False, False, True, True]]
    assert new_method.choose(scores, 0.5).tolist() == keep
    assert new_method.choose(scores, 0.0).all()
