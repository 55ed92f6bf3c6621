"""A forward pass as a coroutine: it pauses whenever it enters a block, and goes on with the outputs it is given.

A `Pass` runs the model in a greenlet. Within `pausing(blocks)` a block's `forward` does not compute: it switches to
whoever resumed the pass, handing out the arguments of the call, and returns what `resume` then gives it. Anything
around the blocks (embeddings, masks, position biases, the encoder's final norm) is the model's own code, run once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from harness import models
from harness.models import Block
from harness.problems import Problem


@dataclass(frozen=True)
class Call:
    """A paused forward pass at the door of a block: which block, and the arguments of the call."""

    block: int
    args: tuple
    kwargs: Mapping[str, Any]


class _Forward(greenlet):
    """A greenlet whose run is a forward pass; only in such a one does entering a block pause."""


class Pass:
    """One batch's forward pass: the greenlet it runs in, and the call it is paused at (None when it has ended)."""

    def __init__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> None:
        batch = models.placed(model, batch)
        valid = models.valid(model, batch)
        self.valid = {stack: None if positions.all() else positions for stack, positions in valid.items()}
        self.shapes = {stack: positions.shape for stack, positions in valid.items()}
        self.lengths = {stack: positions.sum(dim=1) for stack, positions in valid.items()}
        # A cache would hold keys twice, since every block is run twice.
        self._greenlet = _Forward(lambda: model(**batch, use_cache=False))
        self.call: Call | None = None
        self.resume()

    def resume(self, *outputs: Any) -> None:
        """Goes on, with the outputs of the block it is paused at, to the next block or to the end."""
        self._greenlet.parent = getcurrent()
        result = self._greenlet.switch(*outputs)
        self.call = None if self._greenlet.dead else result

    def expect(self, blocks: Sequence[Block], index: int) -> None:
        """Checks that the pass is paused at the block whose turn it is."""
        name = blocks[index].name
        if self.call is None:
            raise Problem("a calibration batch ended its forward pass without meeting this block", where=name)
        if self.call.block != index:
            raise Problem(f"a calibration batch met {blocks[self.call.block].name} in its place", where=name)

    def close(self) -> None:
        """Unwinds the forward pass from where it is paused."""
        if not self._greenlet.dead:
            self._greenlet.parent = getcurrent()
            self._greenlet.throw()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switches dropout off, and every module back to its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def pausing(blocks: Sequence[Block]) -> Iterator[list[Callable]]:
    """Makes entering a block, in a forward pass of ours, a switch to the walk; gives the blocks' own forwards."""
    originals = [block.module.forward for block in blocks]
    own = ["forward" in vars(block.module) for block in blocks]

    def paused(index: int) -> Callable:
        def forward(*args: Any, **kwargs: Any) -> Any:
            current = getcurrent()
            if not isinstance(current, _Forward):
                return originals[index](*args, **kwargs)
            return current.parent.switch(Call(index, args, kwargs))

        return forward

    try:
        for index, block in enumerate(blocks):
            block.module.forward = paused(index)
        yield originals
    finally:
        for block, original, is_own in zip(blocks, originals, own, strict=True):
            if is_own:
                block.module.forward = original
            else:
                vars(block.module).pop("forward", None)
