"""The training loop: a generator that makes one optimiser step at a time and reports it.

Whoever iterates decides what to log, when to checkpoint and when to stop; the model is consistent at every report.

One step: for each micro-batch, forward, losses, backward; then the method projects the gradients, the (optional) clip
by global norm, the update, and the method projects the weights.

Gradient accumulation: each mean is weighted by its share of the step's positions, n_micro / n_step, so that means over
answer tokens are those of one big batch whatever the micro-batches hold. SquareHead stays a ratio within a micro-batch
(as in its released code), averaged with the same shares.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from harness.problems import Problem
from harness.tuning import attach
from harness.tuning.attach import DENSE, Attached
from harness.tuning.forward import positions, unwrapped
from harness.tuning.objective import Objective, measure


@dataclass(frozen=True)
class Report:
    """One optimiser step.

    Args:
        step: Steps done, this one included.
        loss: The weighted sum that was descended.
        terms: Every loss by name before its weight, and `name/positions` where it has several means.
        lr: The learning rate of this step.
        grad_norm: Global norm of the projected gradient before the clip.
        samples: Rows this step trained on.
        tokens: Positions that are no padding, over all stacks.
        seconds: Wall time of the step, data preparation included.
    """

    step: int
    loss: float
    terms: Mapping[str, float]
    lr: float
    grad_norm: float
    samples: int
    tokens: int
    seconds: float

    @property
    def curve(self) -> dict[str, float]:
        """What is drawn over the steps, and is the same in every run with the same seed: no times."""
        return {"loss": self.loss, **self.terms, "lr": self.lr, "grad_norm": self.grad_norm}


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    batches: Callable[[int], list[Mapping[str, Tensor]]],
    accelerator: Accelerator,
    *,
    steps: int,
    lr: Callable[[int], float],
    start: int = 0,
    attached: Attached = DENSE,
    clip: float | None = None,
) -> Iterator[Report]:
    """Trains a model, yielding after every optimiser step.

    Args:
        model: The student, as `accelerator.prepare` returned it.
        optimizer: Likewise.
        objective: What is minimised.
        batches: Step (from 0) -> its micro-batches, with labels.
        accelerator: Moves, casts and runs backward.
        steps: Steps of the whole run.
        lr: Step (from 0) -> learning rate.
        start: Steps done already, when resuming.
        attached: The method and the pruned layers it is attached to.
        clip: Largest global norm of the gradient; None clips nothing.

    Raises:
        Problem: A loss or the gradient is not finite (before the update: the model is that of the step before), or a
            step has nothing to score.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(start, steps):
        begun = time.perf_counter()
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = lr(step)
        micro = batches(step)
        means, tokens = _backward(model, objective, micro, accelerator, step)
        attach.project_gradients(attached)
        norm = accelerator.clip_grad_norm_(trained, math.inf if clip is None else clip)
        values = _finite({**means, "gradient norm": norm}, step)
        optimizer.step()
        optimizer.zero_grad()
        attach.project_weights(attached)
        attach.evolve(attached, optimizer.state, step + 1, steps)
        norm = values.pop("gradient norm")
        terms = _terms(values)
        loss = sum(s.weight * terms[s.name] for s in objective.summands)
        samples = sum(len(batch["labels"]) for batch in micro)
        yield Report(step + 1, loss, terms, lr(step), norm, samples, tokens, time.perf_counter() - begun)


def _backward(
    model: nn.Module, objective: Objective, micro: list[Mapping[str, Tensor]], accelerator: Accelerator, step: int
) -> tuple[dict[tuple[str, str], Tensor], int]:
    """Accumulates the gradient of a step; returns each mean over the whole step, and how many tokens it had."""
    weights = {s.name: s.weight for s in objective.summands}
    inner = unwrapped(model)
    counts = [{name: int(chosen.sum()) for name, chosen in positions(inner, batch).items()} for batch in micro]
    whole = sum(map(Counter, counts), Counter())
    if not whole["answer"]:
        raise Problem(f"step {step + 1} has no label to score", hint="every label of its rows is masked or cut off")
    means: dict[tuple[str, str], Tensor] = {}
    for batch, count in zip(micro, counts, strict=True):
        batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
        with accelerator.autocast():
            measured = measure(objective, model, batch)
        shared = {key: mean * (count[key[1]] / whole[key[1]]) for key, mean in measured.items() if count[key[1]]}
        if shared:
            accelerator.backward(sum(weights[name] * mean for (name, _), mean in shared.items()))
        for key, mean in shared.items():
            means[key] = means.get(key, 0) + mean.detach()
    return means, sum(whole.values()) - whole["answer"]


def _finite(values: Mapping[tuple[str, str] | str, Tensor], step: int) -> dict:
    """Brings a step's values to the CPU at once, and refuses the step if one of them is not finite."""
    numbers = dict(zip(values, torch.stack([v.float() for v in values.values()]).tolist(), strict=True))
    wrong = {k: v for k, v in numbers.items() if not math.isfinite(v)}
    if wrong:
        said = ", ".join(f"{k if isinstance(k, str) else k[0]} is {v}" for k, v in wrong.items())
        raise Problem(f"training diverged at step {step + 1}: {said}", hint="a lower learning rate may help")
    return numbers


def _terms(means: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Sums each loss's means, and names them one by one where there are several."""
    terms: Counter[str] = Counter()
    for (name, _), mean in means.items():
        terms[name] += mean
    parts = Counter(name for name, _ in means)
    return {**terms, **{f"{name}/{where}": mean for (name, where), mean in means.items() if parts[name] > 1}}
