"""SquareHead: `sum_l mean((h_l - t_l)^2) / (mean(t_l^2) + eps)`, hidden states of the student h against the teacher t.

Kurtic et al., arXiv 2310.06927, as its released code has it: `scripts/train/train_sparse.py` of SparseFinetuning (MPT),
`run_translation.py` and `run_asr.py` of TACO4NLP (T5, Whisper). Both means run over all valid positions and the width
together: a ratio of two means, once per layer and micro-batch, not a mean of ratios. Layers and stacks are summed, so
the term grows with depth. Where several processes share a micro-batch, the teacher's mean is that of all their
positions; its released code under DDP takes each process's own.

The two codes differ in the last state, which `final` chooses, and in eps: 2^-7 (the bf16 machine epsilon) for MPT, 1e-9
for T5, 1e-8 for Whisper. 2^-7 is no small number next to the hidden states of a small model; `teacher_scale` tells.

`tokens`, `distance` and `layers` are what the authors tried before they settled on the defaults: the switches of
SparseFinetuning's `scripts/train/old_train_sparse.py`, which began as answer, norm, mean. TACO4NLP keeps one of them,
`--feat_loss l2`, which is mse here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import BoolTensor, Tensor

from harness.problems import Problem
from harness.ranges import NonNegative
from harness.tuning.forward import Forward

HIDDEN = True
SINCE = {"tokens": "valid", "distance": "normalised", "layers": "sum"}
"""Options that came after the first results: no stage's key knows them at these values (`runs.decides`)."""


def loss(
    student: Forward,
    teacher: Forward,
    total: Callable[[Tensor], Tensor] = lambda x: x,
    *,
    eps: NonNegative = 0.0078125,
    final: Literal["norm", "block"] = "norm",
    tokens: Literal["valid", "answer", "all"] = "valid",
    distance: Literal["normalised", "mse", "elementwise", "norm"] = "normalised",
    layers: Literal["sum", "mean"] = "sum",
) -> dict[str, Tensor]:
    """Squared error of every block's output, relative to the teacher's mean square.

    Args:
        student: The student's result with hidden states.
        teacher: The teacher's result with hidden states, of the same shapes.
        total: Sums a tensor over the processes that share the micro-batch, without a gradient.
        eps: What is added to the teacher's mean square, or to its squares where the distance is elementwise.
        final: The last state: "norm", the output of the final norm in place of the last block's (MPT), or "block", the
            last block's own output (T5, Whisper).
        tokens: The positions that enter: "valid", prompt and answer; "answer", those that the answer is predicted from,
            of a decoder alone (the released switch takes the labels' mask unmoved, one position later); "all", padding
            too, where micro-batches still weigh by their valid positions.
        distance: "normalised", mean((h - t)^2) / (mean(t^2) + eps); "mse", its numerator; "elementwise",
            mean((h - t)^2 / (t^2 + eps)); "norm", the mean over positions of |h - t|, not squared.
        layers: "sum" over the blocks of all stacks, or their "mean".

    Raises:
        Problem: The answer's positions are asked for, and the model has no decoder.
    """
    terms = {
        name: [
            _between(s.float(), t.float(), chosen, distance, eps, total)
            for s, t in zip(states(student, stack, final), states(teacher, stack, final), strict=True)
        ]
        for name, (stack, chosen) in _positions(student, tokens).items()
    }
    count = sum(map(len, terms.values())) if layers == "mean" else 1
    return {name: sum(found) / count for name, found in terms.items()}


def _positions(student: Forward, tokens: str) -> dict[str, tuple[str, BoolTensor]]:
    """Returns by the name of a set its stack and the positions [batch, time] of it that enter."""
    if tokens == "answer":
        if "decoder" not in student.valid:
            hint = "squarehead:tokens=valid"
            raise Problem("squarehead:tokens=answer needs answers of tokens: the model has no decoder", hint=hint)
        return {"answer": ("decoder", student.answer)}
    every = tokens == "all"
    return {stack: (stack, torch.ones_like(valid) if every else valid) for stack, valid in student.valid.items()}


def states(result: Forward, stack: str, final: str) -> tuple[Tensor, ...]:
    """Returns the hidden states of a stack, one per block [batch, time, width], the last one as `final` says."""
    blocks = result.blocks[stack]
    return (*blocks[:-1], result.norms[stack]) if final == "norm" else blocks


def mean_square(x: Tensor, valid: Tensor, total: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Returns the mean of x^2 over the valid positions and the width.

    Args:
        x: [batch, time, width].
        valid: [batch, time].
        total: Sums over what else the mean is taken of; by default it is of this alone.
    """
    squares = x.square().sum(dim=-1)
    return total(torch.where(valid, squares, 0.0).sum()) / total(valid.sum() * x.shape[-1])


def _between(s: Tensor, t: Tensor, chosen: Tensor, distance: str, eps: float, total: Callable) -> Tensor:
    """Returns the distance of the student's states s from the teacher's t [batch, time, width] over some positions."""
    if distance == "norm":
        return torch.linalg.vector_norm((s - t)[chosen], dim=-1).mean()
    if distance == "elementwise":
        return ((s - t).square() / (t.square() + eps))[chosen].mean()
    error = mean_square(s - t, chosen)
    return error if distance == "mse" else error / (mean_square(t, chosen, total) + eps)


def teacher_scale(teacher: Forward) -> dict[str, tuple[float, ...]]:
    """Returns mean(t^2) per stack, of every block's output and then of the final norm's: what eps is added to."""
    return {
        stack: tuple(mean_square(t.float(), valid).item() for t in (*teacher.blocks[stack], teacher.norms[stack]))
        for stack, valid in teacher.valid.items()
    }
