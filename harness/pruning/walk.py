"""The calibration walk, the one place with hooks: block by block, collect, prune, propagate.

Every calibration batch is a forward pass of the model itself, run as a coroutine (greenlet) that is paused whenever it
enters a block. The walk then runs that block with the real arguments of the call, once to collect the statistics of its
linears' inputs (the block still dense, its inputs already from pruned blocks), and once more, after whoever listens has
pruned it, for the outputs on which the paused pass goes on to the next block by itself. Hence

- position biases, masks, rotary angles and a pruned encoder's normed states in cross-attention are the architecture's
  own, and no family needs a case here;
- no block is ever computed again, and only one block's statistics are in memory;
- q, k, v (or gate, up), which read one tensor, share one statistic;
- a model that processes share out is whole one block at a time (`pruning/shares.py`); all of them walk, each over all
  batches, so that they prune alike and as one process does.

The order is that of SparseGPT (arXiv:2301.00774) and Wanda (arXiv:2306.11695): all linears of a block are pruned on
statistics of the dense block. Padding enters no statistic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from harness import models
from harness.models import Block, Linear
from harness.problems import Problem
from harness.pruning.paused import Pass, evaluating, pausing
from harness.pruning.shares import borrowed, walking
from harness.pruning.statistics import STATISTICS, Statistic, finite

Inputs = dict[str, dict[str, Tensor]]
"""Statistics of a block's inputs: name of the layer, or of the block for what is its own -> statistic -> value."""


KERNEL = "kernel"
"""The need for the linear kernel of a block's own inputs; it stands under the block's name."""


@torch.no_grad()
def walk(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    needs: Sequence[str],
    blocks: Sequence[Block] | None = None,
) -> Iterator[tuple[Block, Inputs]]:
    """Yields every block with its inputs' statistics; the block is propagated as it is when the walk is resumed.

    The listener prunes the block's weights in place between two steps. While the walk is open the model is in eval
    mode; when it ends, by exhaustion, `close()` or an exception, the model's forward methods and modes are as before.

    Args:
        model: A model of a known family.
        batches: Calibration batches, keyword arguments of the model; moved to the model's device.
        needs: Names of the statistics to collect, keys of `STATISTICS`, or `KERNEL`. With none, nothing is run.
        blocks: The model's blocks, each with the linears to collect for; all linears by default.

    Raises:
        Problem: There are no batches; a batch meets other blocks than expected, or in another order; a linear saw no
            token; a statistic is not finite. The block or layer is named.
    """
    blocks = models.blocks(model) if blocks is None else blocks
    if not needs:
        for block in blocks:
            with borrowed(block.module):
                yield block, {}
        return
    with evaluating(model), walking(model), pausing(blocks) as originals, contextlib.ExitStack() as stack:
        passes = [stack.enter_context(contextlib.closing(Pass(model, batch))) for batch in batches]
        if not passes:
            raise Problem("there is no calibration batch", hint="give a calibration set and a number of samples")
        for index, block in enumerate(blocks):
            for each in passes:
                each.expect(blocks, index)
            with borrowed(block.module):
                inputs = _collect(block, originals[index], passes, [need for need in needs if need != KERNEL])
                if KERNEL in needs:
                    inputs[block.name] = {KERNEL: _kernel(block, passes)}
                yield block, inputs
                inputs.clear()
                if block is not blocks[-1]:
                    for each in passes:
                        each.resume(originals[index](*each.call.args, **each.call.kwargs))


@dataclass
class _Collector:
    """The statistics of a block's linears while its passes run; linears that read one tensor share theirs."""

    needs: Sequence[str]
    found: dict[str, dict[str, Statistic]] = field(default_factory=dict)
    seen: list[tuple[Tensor, str, dict[str, Statistic]]] = field(default_factory=list)

    def add(self, linear: Linear, x: Tensor, each: Pass) -> None:
        """Counts one linear's input x [batch, tokens, columns] of one pass in."""
        known = self.found.get(linear.name)
        for tensor, reads, statistics in self.seen:
            if tensor is x and reads == linear.reads and (known is None or known is statistics):
                self.found[linear.name] = statistics
                return
        shape = each.shapes[linear.reads]
        if x.shape[:-1] not in (shape, (shape.numel(),)):  # OPT's feed-forward reads all positions as one row
            raise Problem(
                f"its input {tuple(x.shape)} does not stand on the {linear.reads}'s positions {tuple(shape)}",
                where=linear.name,
            )
        if known is None:
            known = {need: STATISTICS[need](x.shape[-1], x.device) for need in self.needs}
            self.found[linear.name] = known
        positions = each.valid[linear.reads]
        tokens = x.flatten(0, -2) if positions is None else x.flatten(0, -2)[positions.flatten()]
        for statistic in known.values():
            statistic.add(tokens, each.lengths[linear.reads])
        self.seen.append((x, linear.reads, known))


class _AllSeenError(Exception):
    """Every linear of the block has seen its input."""


def _collect(block: Block, forward: Callable, passes: Sequence[Pass], needs: Sequence[str]) -> Inputs:
    """Runs one block on every pass and returns the finite statistics of its linears' inputs.

    A run ends when its last linear has seen its input: what that and the rest of the block compute is for nobody.
    """
    if not needs or not block.linears:
        return {}
    collector = _Collector(needs)
    for each in passes:
        waiting = {linear.name for linear in block.linears}

        def see(_: nn.Module, args: tuple, linear: Linear, each: Pass = each, waiting: set[str] = waiting) -> None:
            collector.add(linear, args[0], each)
            waiting.discard(linear.name)
            if not waiting:
                raise _AllSeenError

        hooks = [linear.module.register_forward_pre_hook(partial(see, linear=linear)) for linear in block.linears]
        try:
            with contextlib.suppress(_AllSeenError):
                forward(*each.call.args, **each.call.kwargs)
        finally:
            collector.seen.clear()
            for hook in hooks:
                hook.remove()
    values: dict[int, dict[str, Tensor]] = {}
    inputs: Inputs = {}
    for linear in block.linears:
        statistics = collector.found.get(linear.name)
        if statistics is None or not all(statistic.tokens for statistic in statistics.values()):
            raise Problem("no calibration token reached this layer", where=linear.name)
        if id(statistics) not in values:
            values[id(statistics)] = {need: statistic.value for need, statistic in statistics.items()}
        for need, value in values[id(statistics)].items():
            if not finite(value):
                raise Problem(f"the statistic {need!r} of its inputs is not finite", where=linear.name)
        inputs[linear.name] = values[id(statistics)]
    return inputs


def _kernel(block: Block, passes: Sequence[Pass]) -> Tensor:
    """Returns F F^T [n, n], float32, a row of F being one sequence's inputs of the block, padding as zero."""
    features = []
    for each in passes:
        hidden = each.call.args[0] if each.call.args else each.call.kwargs["hidden_states"]
        positions = each.valid[block.stack]
        features.append(hidden if positions is None else hidden * positions[..., None])
    longest = max(hidden.shape[1] for hidden in features)
    rows = [nn.functional.pad(h, (0, 0, 0, longest - h.shape[1])).flatten(1).float() for h in features]
    return torch.cat([torch.cat([a @ b.T for b in rows], dim=1) for a in rows])
