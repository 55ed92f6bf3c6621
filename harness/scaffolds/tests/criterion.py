"""New method: scores worked by hand."""

from __future__ import annotations

import torch

from harness.pruning.criteria import new_method


def test_a_case_worked_by_hand():
    """Each score is its weight without the sign."""
    weight = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    assert new_method.score(weight).tolist() == [[1.0, 2.0], [0.0, 3.0]]
