"""What the inputs of each linear look like on calibration data: their range by column, and the norm they come from.

One plain forward pass of the model per batch. Where a linear reads the very tensor that a norm of its block put out,
and no view or sum of it, that norm is what can be scaled in its place; this holds for any architecture, and no family
names its norms. Padding enters no range.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from harness import models
from harness.models import Block, Linear
from harness.problems import Problem
from harness.pruning.paused import evaluating


@dataclass(frozen=True)
class Seen:
    """A linear's inputs: lowest and highest value by column, float32 [columns], and the name of their norm, if any."""

    low: Tensor
    high: Tensor
    norm: str | None

    @property
    def largest(self) -> Tensor:
        """The largest magnitude by column, [columns]."""
        return torch.maximum(-self.low, self.high)


@dataclass
class _Watch:
    """Ranges and norms while the passes run."""

    valid: Mapping[str, Tensor] = field(default_factory=dict)
    produced: list[tuple[Tensor, str]] = field(default_factory=list)
    found: dict[str, Seen] = field(default_factory=dict)

    def enter(self, _: nn.Module, args: tuple) -> None:
        """Forgets the norms of the block before."""
        self.produced.clear()

    def put_out(self, _: nn.Module, args: tuple, output: Tensor, name: str) -> None:
        """Remembers a norm's output."""
        self.produced.append((output, name))

    def read(self, _: nn.Module, args: tuple, linear: Linear) -> None:
        """Counts one linear's input [batch, tokens, columns] in."""
        x = args[0]
        norm = next((name for tensor, name in self.produced if tensor is x), None)
        tokens = x.detach().flatten(0, -2)[self.valid[linear.reads].flatten()].float()
        if not len(tokens):
            return
        low, high = tokens.amin(dim=0), tokens.amax(dim=0)
        if known := self.found.get(linear.name):
            low, high = torch.minimum(low, known.low), torch.maximum(high, known.high)
            norm = norm if norm == known.norm else None
        self.found[linear.name] = Seen(low, high, norm)


@torch.no_grad()
def observe(model: nn.Module, blocks: Sequence[Block], batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Seen]:
    """Returns the inputs of every linear of the blocks by its name.

    Args:
        model: A model of a known family, on its device.
        blocks: Its blocks, each with the linears to look at.
        batches: Calibration batches, keyword arguments of the model.

    Raises:
        Problem: A linear saw no token, or an input that is not finite; it is named.
    """
    watch = _Watch()
    with evaluating(model), _watching(watch, blocks):
        for batch in batches:
            batch = models.placed(model, batch)
            watch.valid = models.valid(model, batch)
            model(**batch, use_cache=False)
            watch.produced.clear()
    for linear in (linear for block in blocks for linear in block.linears):
        if linear.name not in watch.found:
            raise Problem("no calibration token reached this layer", where=linear.name)
        if not watch.found[linear.name].largest.isfinite().all():
            raise Problem("its inputs are not finite", where=linear.name)
    return watch.found


@contextlib.contextmanager
def _watching(watch: _Watch, blocks: Sequence[Block]) -> Iterator[None]:
    hooks = []
    try:
        for block in blocks:
            hooks.append(block.module.register_forward_pre_hook(watch.enter))
            for inner, module in block.module.named_modules():
                if is_norm(module):
                    name = f"{block.name}.{inner}"
                    hooks.append(module.register_forward_hook(partial(watch.put_out, name=name)))
            hooks += [
                linear.module.register_forward_pre_hook(partial(watch.read, linear=linear)) for linear in block.linears
            ]
        yield
    finally:
        for hook in hooks:
            hook.remove()


def is_norm(module: nn.Module) -> bool:
    """Says whether a module is a norm with a weight of its own: one factor per column, and nothing inside."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 1 and not any(module.children())
