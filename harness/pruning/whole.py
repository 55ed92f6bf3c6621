"""Pruning a whole model: the walk, each layer by the recipe at its own rate; and a trial of rates, for a search."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from harness import models
from harness.memory import peak, reset_peak
from harness.models import Block, Linear
from harness.problems import Problem, nearest
from harness.pruning.allocation import Layer
from harness.pruning.recipe import Recipe, clock, prune
from harness.pruning.walk import walk


@dataclass(frozen=True)
class Setup:
    """What is pruned, how, and on what it is calibrated.

    Attributes:
        model: The model, on its device.
        blocks: Its blocks, each with the linears that are pruned.
        batches: Calibration batches; not looked at by a recipe that needs no statistics.
        recipe: How a layer is pruned.
        gradients: The gradients, before any layer is pruned, that the recipe needs, by their name and layer.
    """

    model: nn.Module
    blocks: Sequence[Block]
    batches: Sequence[Mapping[str, Tensor]]
    recipe: Recipe
    gradients: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The layers that are pruned, by name, in execution order."""
        return {
            linear.name: Layer(tuple(linear.module.weight.shape), index, linear.part)
            for index, block in enumerate(self.blocks)
            for linear in block.linears
        }

    def given(self, linear: Linear, inputs: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """Returns what is known of one linear, given the statistics of its block's inputs."""
        own = {name: by_layer[linear.name] for name, by_layer in self.gradients.items()}
        return {"layer": linear.name, "part": linear.part, **inputs.get(linear.name, {}), **own}


@dataclass(frozen=True)
class Pruned:
    """A pruned block: masks and rows of `prune.json` by layer; how long it took, its forward passes included."""

    name: str
    keeps: Mapping[str, Tensor]
    rows: Mapping[str, dict]
    seconds: float
    peak_memory_bytes: int

    def account(self) -> dict[str, float]:
        """Returns the block's line of `prune.json`."""
        zeros, size = (sum(row[key] for row in self.rows.values()) for key in ("zeros", "size"))
        reached = zeros / size if size else None
        cost = {"seconds": self.seconds, "peak_memory_bytes": self.peak_memory_bytes}
        return {"reached": reached, "zeros": zeros, "size": size, **cost}


def without(blocks: Sequence[Block], skip: Sequence[str]) -> list[Block]:
    """Returns the blocks with those linears only whose name matches none of the globs in `skip`.

    Raises:
        Problem: A glob matches no layer, or together they match all.
    """
    names = [linear.name for block in blocks for linear in block.linears]
    for glob in skip:
        if not any(fnmatchcase(name, glob) for name in names):
            hint = f"layers are named like {names[0]}; * stands for any text"
            raise Problem(f"{glob!r} matches no layer", where="prune.skip", nearest=nearest(glob, names), hint=hint)
    left = [
        Block(
            block.name,
            block.module,
            block.stack,
            tuple(linear for linear in block.linears if not any(fnmatchcase(linear.name, glob) for glob in skip)),
        )
        for block in blocks
    ]
    if not any(block.linears for block in left):
        raise Problem("every layer is skipped: there is nothing to prune", where="prune.skip")
    return left


def prune_model(setup: Setup, rates: Mapping[str, float]) -> Iterator[Pruned]:
    """Prunes a model in place, yielding after every block; what is done between two blocks is in no block's time.

    Args:
        setup: The model, and how it is pruned.
        rates: Fraction of zeros by layer.
    """
    model, recipe = setup.model, setup.recipe
    begin = clock(model.device)
    reset_peak(model.device)
    with contextlib.closing(walk(model, setup.batches, recipe.needs, setup.blocks)) as steps:
        for block, inputs in steps:
            keeps, rows = {}, {}
            for linear in block.linears:
                keep, row = prune(linear, setup.given(linear, inputs), rates[linear.name], recipe)
                keeps[linear.name], rows[linear.name] = keep.cpu(), row
            seconds = clock(model.device) - begin
            yield Pruned(block.name, keeps, rows, round(seconds, 4), peak(model.device))
            reset_peak(model.device)
            begin = clock(model.device)


@torch.no_grad()
def trial(setup: Setup, rates: Mapping[str, float], held_out: Sequence[Mapping[str, Tensor]]) -> float:
    """Prunes at the rates, takes the mean loss on held-out batches, and puts the weights back, which wait on the CPU.

    Args:
        setup: The model, not yet pruned.
        rates: Fraction of zeros by layer.
        held_out: Batches with labels.

    Returns:
        The mean loss over the labels, whose exponential is the perplexity.
    """
    linears = [linear.module for block in setup.blocks for linear in block.linears]
    before = [linear.weight.detach().to("cpu", copy=True) for linear in linears]
    try:
        for _ in prune_model(setup, rates):
            pass
        return mean_loss(setup.model, held_out)
    finally:
        for linear, weight in zip(linears, before, strict=True):
            linear.weight.copy_(weight)


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> float:
    """Returns the model's own loss, averaged over the scored labels of all batches.

    Raises:
        Problem: There is no label, the model gives no loss, or it is not a number.
    """
    total, labels = 0.0, 0
    for batch in batches:
        batch = models.placed(model, batch)
        count = models.scored(model, batch)
        total, labels = total + float(models.loss(model, batch)) * count, labels + count
    if not labels or math.isnan(total):
        raise Problem(f"the loss on the held-out text is {total / max(labels, 1)}", where="prune.search_data")
    return total / labels
