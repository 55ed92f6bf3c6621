"""What a run trains and with what: models on their device, the objective, batches, the method attached, the optimiser.

`begin` makes all of it, in an order that matters: gradients are taken of the model as it is, a method is attached to
whole layers, the model is then shared out, and the optimiser is made over the shares. Models that are shared out come
to the device by the block, unless something is computed with them before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import BoolTensor, nn

from harness import rooms
from harness.memory import peak, reset_peak
from harness.pruning.keep import Masks
from harness.runs.decides import begins_with_gradients
from harness.tuning import attach, devices, reconstruction
from harness.tuning.attach import Attached
from harness.tuning.batches import Collate, batches
from harness.tuning.losses.squarehead import teacher_scale
from harness.tuning.objective import Objective, objective, teach
from harness.tuning.optimizer import adamw
from harness.tuning.phases import Ramp
from harness.tuning.slopes import mean_gradients


@dataclass(frozen=True)
class Parts:
    """The parts of a run.

    Attributes:
        model: The model, not wrapped.
        wrapped: It as `devices.spread` returned it, for the loop.
        optimizer: Over its parameters.
        stepper: Likewise as returned.
        aim: What is descended.
        of: A step's micro-batches.
        attached: The method and its layers.
        dense: The dense model's block outputs, for a ramp whose method shares out ranks by errors.
        accelerator: Of this run.
        said: What the summary tells of all this.
    """

    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    stepper: Any
    aim: Objective
    of: Callable[..., list[Any]]
    attached: Attached
    dense: reconstruction.Outputs
    accelerator: Accelerator
    said: dict[str, Any]


def begin(
    model: nn.Module, teacher: nn.Module | None, features: Sequence[Any], collate: Collate, options: Mapping[str, Any],
    keeps: Mapping[str, BoolTensor] | None, ramp: Ramp | None, accelerator: Accelerator,
) -> Parts:  # fmt: skip
    """Puts the models on their device, attaches the method, and makes the optimiser.

    Args:
        model: The model to train.
        teacher: The model to learn from, if a loss needs one.
        features: Training examples.
        collate: Makes a padded batch of some of them.
        options: A `prepare` or `tune` section, resolved.
        keeps: The masks [out, in] by layer; None trains every weight, or begins so with a ramp.
        ramp: The prunings between phases of training.
        accelerator: Of this run.

    Raises:
        Problem: The models or the method cannot do what is asked of them.
    """
    place, looks = accelerator.device, bool(keeps or ramp) and begins_with_gradients(options)
    for each in (model, teacher):
        if each is not None and (ramp or looks or not devices.shares_out(accelerator)):
            each.to(place)
    devices.recompute(model, options["recompute"])
    aim = objective(rooms.resolve_terms("loss", options["loss"]), model, teacher)
    size, seed = options["batch_size"], options["seed"]
    of = batches(features, collate, batch_size=size, micro_batch=size // options["accumulation"], seed=seed)
    keeps = _dense_masks(model, ramp) if ramp else keeps
    gradients, cost = _gradients(model, aim, of, accelerator, options, len(features), keeps) if looks else ({}, {})
    attached = attach.attach(model, keeps, options["method"], gradients, place) if keeps else attach.DENSE
    dense = reconstruction.outputs(model, ramp.batches) if ramp and attached.allot else []
    for each in (model, aim.teacher):
        devices.shard(each, accelerator)
    optimizer = _optimizer(model, options, bool(keeps) and _constant(options, "AGED"))
    said = {**cost, **_teacher_scale(aim, of, accelerator), **devices.said(accelerator)}
    wrapped, stepper = devices.spread(model, optimizer, accelerator)
    return Parts(model, wrapped, optimizer, stepper, aim, of, attached, dense, accelerator, said)


def _teacher_scale(
    aim: Objective, of: Callable[[int], list[Any]], accelerator: Accelerator
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Returns what the teacher's hidden states measure on the first micro-batch, if the objective reads them."""
    if not aim.teacher_stacks:
        return {}
    batch = {name: value.to(accelerator.device) for name, value in of(0)[0].items()}
    with accelerator.autocast():
        return {"teacher_mean_square": teacher_scale(teach(aim, batch))}


def _dense_masks(model: nn.Module, ramp: Ramp) -> Masks:
    """Returns masks that keep every weight of the layers that a ramp will prune."""
    masks = Masks()
    for name in (name for names in ramp.blocks for name in names):
        masks[name] = torch.ones(model.get_submodule(name).weight.shape, dtype=torch.bool)
    return masks


def _gradients(
    model: nn.Module,
    aim: Objective,
    of: Callable[[int], list[Any]],
    accelerator: Accelerator,
    options: Mapping[str, Any],
    rows: int,
    keeps: Mapping[str, BoolTensor],
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Returns the mean gradients that the method's `prepare` looks at, and what they cost."""
    choice = rooms.resolve("method", options["method"])
    samples, begun = min(choice.options["samples"], rows), time.perf_counter()
    reset_peak(accelerator.device)
    found = mean_gradients(model, aim, of, accelerator, list(keeps), samples)
    cost = {"samples": samples, "seconds": time.perf_counter() - begun, "peak_memory_bytes": peak(accelerator.device)}
    return found, {"gradient": cost}


def _optimizer(model: nn.Module, options: Mapping[str, Any], aged: bool) -> torch.optim.Optimizer:
    beta1, beta2 = options["betas"]
    given = {"lr": options["lr"], "weight_decay": options["weight_decay"], "beta1": beta1, "beta2": beta2}
    return adamw(model, **given, aged=aged)


def _constant(options: Mapping[str, Any], name: str) -> bool:
    """Returns a constant of the method's file; False where it has none."""
    return bool(rooms.ROOMS["method"].method(rooms.parse(options["method"]).name).constants.get(name))
