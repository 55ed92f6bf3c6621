"""The training loop: a generator that makes one optimiser step at a time and reports it.

Whoever iterates decides what to log, when to checkpoint and when to stop; the model is consistent at every report.

One step: for each micro-batch, forward, losses, backward, in which a method masks its gradients; then the (optional)
clip by global norm, the update, and what the method changes after it.

Gradient accumulation: each mean is weighted by its share of the step's positions, n_micro / n_step, so that means over
answer tokens are those of one big batch whatever the micro-batches hold. SquareHead stays a ratio within a micro-batch
(as in its released code), averaged with the same shares.

Several processes: each takes its share of every micro-batch, and n_step counts all of them, so that the step is that of
one process but for rounding (`tests/tuning/test_several.py`: 1e-5 in fp32, and in bf16 half of what that itself rounds
away). A step in which some process would have nothing to score is computed whole by every process. fp16: a step whose
scaled gradient overflows changes nothing but the scale.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from harness.problems import Problem
from harness.pruning import shares
from harness.tuning import attach, devices
from harness.tuning.attach import DENSE, Attached
from harness.tuning.forward import positions, unwrapped
from harness.tuning.objective import Objective, measure

ROWS = "rows"
"""Beside the sets of positions, what else of a micro-batch is counted."""
LEAST_SCALE = 2**-10
"""The loss scale of fp16 below which no gradient is expected to be finite any more; it begins at 2^16."""


@dataclass(frozen=True)
class Report:
    """One optimiser step.

    Args:
        step: Steps done, this one included.
        loss: The weighted sum that was descended.
        terms: Every loss by name before its weight, and `name/positions` where it has several means.
        lr: The learning rate of this step.
        grad_norm: Global norm of the gradient before the clip; not finite where the step was skipped.
        samples: Rows this step trained on, in all processes.
        tokens: Positions that are no padding, over all stacks and processes.
        seconds: Wall time of the step, data preparation included.
        skipped: Whether the gradient overflowed and nothing was updated; None unless in fp16.
    """

    step: int
    loss: float
    terms: Mapping[str, float]
    lr: float
    grad_norm: float
    samples: int
    tokens: int
    seconds: float
    skipped: bool | None = None

    @property
    def curve(self) -> dict[str, float]:
        """What is drawn over the steps, and is the same in every run with the same seed: no times."""
        curve = {"loss": self.loss, **self.terms, "lr": self.lr}
        if not self.skipped:
            curve["grad_norm"] = self.grad_norm
        return curve if self.skipped is None else {**curve, "skipped": float(self.skipped)}


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    batches: Callable[..., list[Mapping[str, Tensor]]],
    accelerator: Accelerator,
    *,
    steps: int,
    lr: Callable[[int], float],
    start: int = 0,
    attached: Attached = DENSE,
    clip: float | None = None,
    seed: int = 0,
) -> Iterator[Report]:
    """Trains a model, yielding after every optimiser step.

    Args:
        model: The student, as `devices.spread` returned it.
        optimizer: Likewise.
        objective: What is minimised.
        batches: Step (from 0) -> its micro-batches, with labels; where several processes train, also which process of
            how many -> its share of them.
        accelerator: Moves, casts, scales and runs backward.
        steps: Steps of the whole run.
        lr: Step (from 0) -> learning rate.
        start: Steps done already, when resuming.
        attached: The method and the pruned layers it is attached to.
        clip: Largest global norm of the gradient; None clips nothing.
        seed: Of what several processes draw, each apart from the others; one process draws on as it does.

    Raises:
        Problem: A loss or the gradient is not finite (before the update: the model is that of the step before), a
            step has nothing to score, or in fp16 gradients overflow at any scale.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(start, steps):
        begun = time.perf_counter()
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = lr(step)
        devices.draw(accelerator, seed, step, accelerator.process_index)
        means, whole = _backward(model, objective, batches, accelerator, step)
        devices.check_reached(model, trained)
        devices.draw(accelerator, seed, step, None)
        norm = shares.full(accelerator.clip_grad_norm_(trained, math.inf if clip is None else clip))
        values, norm = _finite(means, norm, accelerator, step)
        optimizer.step()
        optimizer.zero_grad()
        skipped = _skipped(optimizer, accelerator, step)
        if not skipped:
            attach.evolve(attached, optimizer.state, step + 1, steps)
        terms = _terms(values)
        loss = sum(s.weight * terms[s.name] for s in objective.summands)
        samples, tokens = whole[ROWS], sum(whole.values()) - whole["answer"] - whole[ROWS]
        seconds = time.perf_counter() - begun
        yield Report(step + 1, loss, terms, lr(step), norm, samples, tokens, seconds, skipped)


def _backward(
    model: nn.Module, objective: Objective, batches: Callable, accelerator: Accelerator, step: int
) -> tuple[dict[tuple[str, str], Tensor], Counter[str]]:
    """Accumulates the gradient of a step.

    Returns:
        This process's part of each mean over the whole step, and how large all sets of positions are.
    """
    weights = {s.name: s.weight for s in objective.summands}
    micro, whole = _shares(batches, unwrapped(model), accelerator, step)
    if not whole["answer"]:
        raise Problem(f"step {step + 1} has no label to score", hint="every label of its rows is masked or cut off")
    means: dict[tuple[str, str], Tensor] = {}
    for number, (batch, count) in enumerate(micro, 1):
        batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
        with nullcontext() if number == len(micro) else devices.unsynchronised(model, accelerator):
            with accelerator.autocast():
                measured = measure(objective, model, batch)
            shared = {key: mean * (count[key[1]] / whole[key[1]]) for key, mean in measured.items() if count[key[1]]}
            if shared:
                descended = sum(weights[name] * mean for (name, _), mean in shared.items())
                accelerator.backward(descended * accelerator.num_processes)  # the processes' gradients are averaged
        for key, mean in shared.items():
            means[key] = means.get(key, 0) + mean.detach()
    return means, whole


def _shares(
    batches: Callable, model: nn.Module, accelerator: Accelerator, step: int
) -> tuple[list[tuple[Mapping[str, Tensor], dict[str, int]]], Counter[str]]:
    """Returns this process's share of the micro-batches with what they count, and the counts of the whole step.

    Where a process's share of a micro-batch lacks what another's has, each process takes the whole step: a gradient
    that is averaged needs one from everybody.
    """
    processes = accelerator.num_processes
    micro = batches(step) if processes == 1 else batches(step, accelerator.process_index, processes)
    counts = [_counts(model, batch) for batch in micro]
    all_counts = devices.gathered([list(count.values()) for count in counts], accelerator)
    if any(0 in same and any(same) for part in zip(*all_counts, strict=True) for same in zip(*part, strict=True)):
        micro = batches(step)
        counts = [_counts(model, batch) for batch in micro]
        all_counts = [[list(count.values()) for count in counts]] * processes
    whole: Counter[str] = Counter()
    for part in (part for parts in all_counts for part in parts):
        whole.update(dict(zip(counts[0], part, strict=True)))
    shares = list(zip(micro, counts, strict=True))
    if processes > 1:
        shares.sort(key=lambda share: share[1]["answer"] > 0)  # gradients are averaged in the last backward: it has one
    return shares, whole


def _counts(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, int]:
    """Returns how many positions each set of a micro-batch has, and its rows."""
    sets = {name: int(chosen.sum()) for name, chosen in positions(model, batch).items()}
    return {**sets, ROWS: len(batch["labels"])}


def _finite(
    means: Mapping[tuple[str, str], Tensor], norm: Tensor, accelerator: Accelerator, step: int
) -> tuple[dict[tuple[str, str], float], float]:
    """Adds the processes' means up, brings them and the norm to the CPU at once, and refuses what is not finite.

    In fp16 a norm may overflow: the loss scale is found that way.
    """
    added = accelerator.reduce(torch.stack([mean.float() for mean in means.values()]))
    *numbers, length = torch.cat([added, norm.float().to(added.device)[None]]).tolist()
    values = dict(zip(means, numbers, strict=True))
    wrong = {name: value for (name, _), value in values.items() if not math.isfinite(value)}
    if not math.isfinite(length) and accelerator.scaler is None:
        wrong["gradient norm"] = length
    if wrong:
        said = ", ".join(f"{name} is {value}" for name, value in wrong.items())
        raise Problem(f"training diverged at step {step + 1}: {said}", hint="a lower learning rate may help")
    return values, length


def _skipped(optimizer: torch.optim.Optimizer, accelerator: Accelerator, step: int) -> bool | None:
    """Returns whether the step was skipped because its gradient overflowed; None where no loss scale is used."""
    if accelerator.scaler is None:
        return None
    if accelerator.scaler.get_scale() < LEAST_SCALE:
        what = f"training diverged at step {step + 1}: in fp16 the gradient overflows at any loss scale"
        raise Problem(what, hint="write precision: bf16, or fp32")
    return optimizer.step_was_skipped


def _terms(means: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Sums each loss's means, and names them one by one where there are several."""
    terms: Counter[str] = Counter()
    for (name, _), mean in means.items():
        terms[name] += mean
    parts = Counter(name for name, _ in means)
    return {**terms, **{f"{name}/{where}": mean for (name, where), mean in means.items() if parts[name] > 1}}
