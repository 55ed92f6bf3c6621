"""New method: an error worked by hand."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from harness.tuning.losses import new_method


def test_a_case_worked_by_hand():
    """The answer is the first position: (1^2 + 2^2) / 2."""
    answer = torch.tensor([[True, False]])
    student = SimpleNamespace(logits=torch.tensor([[[1.0, 3.0], [9.0, 9.0]]]), answer=answer)
    teacher = SimpleNamespace(logits=torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), answer=answer)
    assert new_method.loss(student, teacher)["answer"].item() == 2.5
    assert new_method.loss(student, teacher, scale=2.0)["answer"].item() == 5.0
