"""Phases: a pruning and the steps that follow it. A run without a ramp is one phase in which nothing is pruned.

    targets s_1 < ... < s_T (a ramp's), N steps:  prune to s_1, train, prune to s_2, train, ..., prune to s_T, train

Every phase has the same share of the steps, or the last has a share of its own: gradual pruning gives the model time to
recover, most of it at the sparsity that stays (LoSA, arXiv:2502.14816: 125 updates each, then 750). With `restart`
optimiser and schedule begin anew after every pruning, as in LoSA; without, one schedule goes over the whole run, as in
Zhu & Gupta (arXiv:1710.01878).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.problems import Problem
from harness.runs.job import Progress

if TYPE_CHECKING:
    from torch import BoolTensor, Tensor


@dataclass(frozen=True)
class Ramp:
    """What is pruned between phases, and how.

    Attributes:
        targets: The sparsity of each pruning.
        prune: Prunes the model in place to a target, given the masks [out, in] by layer that it has, reporting after
            every block; returns the new masks.
        blocks: The names of each block's layers.
        batches: Calibration batches: what errors are measured on.
    """

    targets: Sequence[float]
    prune: Callable[[float, Mapping[str, BoolTensor]], Generator[Progress, None, Mapping[str, BoolTensor]]]
    blocks: Sequence[Sequence[str]]
    batches: Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class Phase:
    """The steps from `start` to before `end`, after a pruning to `target`; None where nothing is pruned."""

    start: int
    end: int
    target: float | None = None


def phases(steps: int, targets: Sequence[float] = (), last: float | None = None) -> list[Phase]:
    """Returns the phases of a run.

    Args:
        steps: Of the whole run.
        targets: The sparsity of each pruning; none for a model that was pruned before.
        last: The share of the steps that follow the last pruning; None for equal shares.

    Raises:
        Problem: A phase would have no step.
    """
    if not targets:
        return [Phase(0, steps)]
    count = len(targets)
    tail = 1 / count if last is None or count == 1 else last
    before = [(1 - tail) * turn / (count - 1) for turn in range(count)] if count > 1 else [0.0]
    starts = [round(share * steps) for share in before]
    ends = [*starts[1:], steps]
    if any(start >= end for start, end in zip(starts, ends, strict=True)):
        text = f"{steps} steps are too few for {count} prunings, each with a step after it"
        raise Problem(text, where="tune.ramp", hint="more steps, a ramp of fewer, or another share for the last")
    return [Phase(*each) for each in zip(starts, ends, targets, strict=True)]


def by_phase(found: Sequence[Phase], rate: Callable[[int], Callable[[int], float]]) -> Callable[[int], float]:
    """Returns the learning rate of each step where the schedule begins anew in every phase.

    Args:
        found: The phases.
        rate: Steps of a run -> the function from steps done to the learning rate.
    """
    rates = [rate(phase.end - phase.start) for phase in found]

    def of(step: int) -> float:
        index = next(i for i, phase in enumerate(found) if step < phase.end)
        return rates[index](step - found[index].start)

    return of
