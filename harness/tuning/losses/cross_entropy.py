"""The model's own loss: `-mean log p(label)` over the labels that are not -100."""

from __future__ import annotations

from torch import Tensor

from harness.tuning.forward import Forward


def loss(student: Forward) -> dict[str, Tensor]:
    """Cross-entropy with the labels.

    Args:
        student: The student's result; its model takes the mean over all scored labels of the batch.
    """
    return {"answer": student.loss}
