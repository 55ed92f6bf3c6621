"""New method: squared error of the logits, to begin with.

    L = scale * mean over the answer of (z_student - z_teacher)^2

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

from torch import Tensor

from harness.ranges import Positive
from harness.tuning.forward import Forward


def loss(student: Forward, teacher: Forward, *, scale: Positive = 1.0) -> dict[str, Tensor]:
    """New method: squared error of the logits, to begin with.

    Args:
        student: The student's result; logits [batch, time, vocabulary].
        teacher: The teacher's result on the same batch.
        scale: A factor on the error.
    """
    difference = (student.logits - teacher.logits)[student.answer].float()
    return {"answer": scale * difference.square().mean()}
