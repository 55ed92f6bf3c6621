"""Distillation of logits: `tau^2 * mean KL(softmax(z_teacher / tau) || softmax(z_student / tau))` over the answer.

Hinton, Vinyals and Dean, arXiv 1503.02531, section 2; forward KL, with the teacher as the target, as the
"standard KD" arm of SquareHead (arXiv 2310.06927).

The mean is over the logits that predict a scored label. In a decoder-only model position t - 1 predicts label t, so the
mask is the labels' moved left by one. SquareHead's released MPT code takes the labels' mask unmoved: it drops the first
answer token and counts the position after the last one. Its encoder-decoder code needs no shift, and has none.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from harness.ranges import Positive
from harness.tuning.forward import Forward


def loss(student: Forward, teacher: Forward, *, temperature: Positive = 1.0) -> dict[str, Tensor]:
    """KL divergence of the student's next-token distribution from the teacher's.

    Args:
        student: The student's result; logits [batch, time, vocabulary].
        teacher: The teacher's result on the same batch.
        temperature: tau, which divides both logits; the factor tau^2 keeps the gradient's scale.
    """
    log_p = functional.log_softmax(teacher.logits[student.answer].float() / temperature, dim=-1)
    log_q = functional.log_softmax(student.logits[student.answer].float() / temperature, dim=-1)
    divergence = functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return {"answer": temperature**2 * divergence}
