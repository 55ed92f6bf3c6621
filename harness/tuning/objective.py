"""The weighted sum of losses that a step descends, with a teacher's forward only where a term asks for one.

Terms of weight 0 are left out altogether: they cost nothing and are not reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness import rooms
from harness.problems import Problem
from harness.tuning import devices, forward
from harness.tuning.forward import Forward, Stack


@dataclass(frozen=True)
class Summand:
    """One loss of the sum: its name, weight, function with options bound, and the names of what it is called with."""

    name: str
    weight: float
    loss: Callable[..., Mapping[str, Tensor]]
    needs: tuple[str, ...]
    hidden: bool


@dataclass(frozen=True)
class Objective:
    """What is minimised.

    Args:
        summands: The losses, none of weight 0.
        stacks: The student's stacks whose hidden states are needed; empty if no loss reads hidden states.
        teacher: The frozen teacher in eval mode, if a loss needs one.
        teacher_stacks: The teacher's stacks, as `stacks`.
    """

    summands: tuple[Summand, ...]
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    teacher: nn.Module | None = None
    teacher_stacks: Mapping[str, Stack] = field(default_factory=dict)


def objective(terms: Sequence[rooms.Term], student: nn.Module, teacher: nn.Module | None = None) -> Objective:
    """Builds the objective of some loss terms.

    Args:
        terms: From `rooms.resolve_terms("loss", text)`.
        student: The model to train, not wrapped.
        teacher: The model to learn from, on the student's device; it is frozen and put in eval mode.

    Raises:
        Problem: Every weight is 0, a loss needs a teacher and there is none, or the two models differ in depth.
    """
    summands = tuple(_summand(term) for term in terms if term.weight)
    if not summands:
        raise Problem("every loss has weight 0", hint="give at least one term a weight")
    taught = [s.name for s in summands if "teacher" in s.needs]
    hidden = any(s.hidden for s in summands)
    stacks = forward.stacks(student) if hidden else {}
    if not taught:
        return Objective(summands, stacks)
    if teacher is None:
        raise Problem(f"the loss {taught[0]!r} needs a teacher and there is none", hint="the entry needs `prepare`")
    teacher.eval().requires_grad_(False)
    teacher_stacks = forward.stacks(teacher) if hidden else {}
    depths = [{name: len(stack.blocks) for name, stack in each.items()} for each in (stacks, teacher_stacks)]
    if depths[0] != depths[1]:
        raise Problem(f"student and teacher differ in depth: {depths[0]} and {depths[1]}")
    return Objective(summands, stacks, teacher, teacher_stacks)


def _summand(term: rooms.Term) -> Summand:
    method = rooms.ROOMS["loss"].method(term.choice.name)
    loss = rooms.bind("loss", term.choice)
    return Summand(term.choice.name, term.weight, loss, method.needs, method.constants.get("HIDDEN", False))


def teach(objective: Objective, batch: Mapping[str, Tensor]) -> Forward:
    """Runs the teacher on a batch, without a graph and without its own loss."""
    with torch.no_grad():
        return forward.forward(objective.teacher, batch, objective.teacher_stacks, scored=False)


def measure(objective: Objective, model: nn.Module, batch: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    """Runs student and teacher on a batch and returns every loss's means, not yet weighted.

    Args:
        objective: From `objective`.
        model: The student, wrapped or not.
        batch: A collated batch on the models' device.

    Returns:
        (name of the loss, set of positions) -> its mean over these positions.
    """
    given = {"batch": batch, "student": forward.forward(model, batch, objective.stacks), "total": devices.total}
    if objective.teacher is not None:
        given["teacher"] = teach(objective, batch)
    return {
        (summand.name, where): mean
        for summand in objective.summands
        for where, mean in summand.loss(*(given[name] for name in summand.needs)).items()
    }
