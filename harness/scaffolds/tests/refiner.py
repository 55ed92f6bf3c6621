"""New method: swaps worked by hand."""

from __future__ import annotations

import torch

from harness.pruning.refiners import new_method


def test_a_case_worked_by_hand():
    """The first row gains by swapping 4 for 1; the second has the best two already, the third keeps all."""
    scores = torch.tensor([[1.0, 4.0, 3.0], [5.0, 0.0, 2.0], [1.0, 2.0, 3.0]])
    keep = torch.tensor([[True, False, True], [True, False, True], [True, True, True]])
    refined = [[False, True, True], [True, False, True], [True, True, True]]
    assert new_method.refine(torch.zeros(3, 3), keep, scores).tolist() == refined
