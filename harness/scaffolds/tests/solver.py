"""New method: a layer worked by hand."""

from __future__ import annotations

import torch

from harness.pruning.patterns import unstructured
from harness.pruning.solvers import new_method


def test_a_case_worked_by_hand():
    """Norms (2, 1) make the scores (4, 3) and (2, 5): the lower one of each row goes."""
    weight, gram = torch.tensor([[2.0, -3.0], [1.0, 5.0]]), torch.tensor([[4.0, 0.5], [0.5, 1.0]])
    solved = new_method.solve(weight, gram, lambda scores, s: unstructured.choose(scores, s, group="row"), 0.5)
    assert solved.keep.tolist() == [[True, False], [False, True]]
    assert solved.weight.tolist() == [[2.0, 0.0], [0.0, 5.0]]
