"""Sparse deltas: `y = x (W + scatter(d at I))^T`; W is frozen, the n values d are trained, their positions I distinct.

SpIEL, Ansell et al., "Scaling Sparse Fine-Tuning to Large Language Models", arXiv:2401.16405, section 3; its release is
github.com/AlanAnsell/peft. Nothing of the weight's size is made, where the release clones W in both passes and forms
gY^T X whole: d is added to W in place while a product is computed, and the old numbers are put back afterwards, bit by
bit; the dense gradient is made and gathered from in bands of rows. Between the passes lie the input, W, d and I.

To multiply only the n pairs of columns was measured on a CPU: as fast where n is 0.5 % of the weights, two to three
times slower at 2 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import BoolTensor, Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear as product

from harness.problems import Problem
from harness.tuning.methods._masked_product import compute_dtype, flattened

CLOSED = -1
"""A layer's count of gradients while none is looked at."""
CPU_BAND, BAND = 2**19, 2**24
"""Numbers of the dense gradient that are made at once, on a CPU and elsewhere."""


@dataclass(frozen=True)
class Band:
    """Some rows of a layer in its backward, flat and in float32.

    Attributes:
        rows: Which.
        start: The flat position of its first number.
        gradient: Of the effective weight, dense.
        weight: The effective weight.
    """

    rows: slice
    start: int
    gradient: Tensor
    weight: Tensor

    def within(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns which of some flat positions lie in it, as their numbers, and where."""
        inside = ((positions >= self.start) & (positions < self.start + len(self.gradient))).nonzero().view(-1)
        return inside, positions[inside].long() - self.start


Watch = Callable[[Iterator[Band]], None]
"""Is shown a layer's bands in each of its backwards, and goes through all of them."""


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, values: Tensor, indices: Tensor, count: Tensor, watch: Watch):
        ctx.save_for_backward(x, weight, values, indices)
        ctx.count, ctx.watch = count, watch
        with added(weight, values, indices) as whole:
            return product(x, whole.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, values, indices = ctx.saved_tensors
        at_x, at_values = None, torch.empty_like(values)
        with added(weight, values, indices) as whole:
            if ctx.needs_input_grad[0]:
                at_x = slope @ whole.to(x.dtype)
            bands = _bands(flattened(slope, x.dtype), flattened(x, x.dtype), whole, indices, at_values)
            if int(ctx.count) != CLOSED:
                ctx.watch(Band(b.rows, b.start, _of_all(b.gradient.float()), b.weight.float()) for b in bands)
            else:
                for _ in bands:
                    pass
        return at_x, None, at_values, None, None, None


def _bands(slope: Tensor, x: Tensor, whole: Tensor, indices: Tensor, at_values: Tensor) -> Iterator[Band]:
    """Yields a layer's bands, and fills in the gradients of the values that lie in each."""
    rows, columns = whole.shape
    size = max(1, (CPU_BAND if whole.device.type == "cpu" else BAND) // columns)
    for start in range(0, rows, size):
        these = slice(start, start + size)
        gradient = slope[:, these].t() @ x
        band = Band(these, start * columns, gradient.view(-1), whole[these].view(-1))
        inside, places = band.within(indices)
        at_values[inside] = band.gradient[places].to(at_values.dtype)
        yield band


@contextmanager
def added(weight: Tensor, values: Tensor, indices: Tensor) -> Iterator[Tensor]:
    """Gives the weight with its deltas added, in place; afterwards it is what it was, bit by bit.

    Args:
        weight: [out, in]; nothing else may look at it meanwhile.
        values: [n].
        indices: [n], flat positions, each once.
    """
    whole, positions = weight.data, indices.long()  # a version of its own: autograd sees no change
    flat = whole.view(-1)
    before = flat[positions]
    try:
        flat[positions] = (before + values.detach()).to(whole.dtype)
        yield whole
    finally:
        flat[positions] = before


def _of_all(gradient: Tensor) -> Tensor:
    """Returns the mean of a gradient over all processes, in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(gradient)
        gradient /= torch.distributed.get_world_size()
    return gradient


def linear(x: Tensor, weight: Tensor, values: Tensor, indices: Tensor, count: Tensor, watch: Watch) -> Tensor:
    """Returns x times the effective weight, in autocast's type where that is on.

    A backward looks at its gradients itself, so a forward that is computed twice (gradient checkpointing) counts once.
    Several processes look at the mean of their gradients, so that they all exchange the same positions.

    Args:
        x: [..., in].
        weight: [out, in]; gets no gradient.
        values: [n].
        indices: [n], flat positions, each once.
        count: Scalar, `CLOSED` where `watch` is not to be shown a gradient.
        watch: Called in the backward.

    Raises:
        Problem: Autocast is to float16, whose loss scale would be in the sums.
    """
    x = x.to(compute_dtype(x))
    if x.dtype == torch.float16 and torch.is_autocast_enabled(x.device.type):
        what = "sparse deltas look at gradients over several steps, and in fp16 these change their scale"
        raise Problem(what, where="precision", hint="write precision: bf16")
    return _Linear.apply(x, weight, values, indices, count, watch)


def effective(weight: Tensor, values: Tensor, indices: Tensor) -> Tensor:
    """Returns weight + deltas [out, in] in a new tensor; each sum is rounded once, to the weight's type."""
    with added(weight, values, indices) as whole:
        return whole.clone()


def budget(shape: tuple[int, int], density: float, rank: int | None) -> int:
    """Returns how many values a layer trains: as many as a LoRA of `rank`, or a share `density` of its weights."""
    rows, columns = shape
    return max(1, rank * (rows + columns) if rank else int(density * rows * columns))


def places(weight: Tensor, among: BoolTensor | None, count: int) -> Tensor:
    """Returns `count` random flat positions, each once, ascending.

    Args:
        weight: [out, in].
        among: [out, in], where they may lie; None is anywhere.
        count: How many.

    Raises:
        Problem: There are not so many.
    """
    enough(weight.numel() if among is None else int(among.sum()), count)
    draw = torch.rand(weight.numel(), device=weight.device)
    if among is not None:
        draw.masked_fill_(~among.view(-1), -1)
    small = torch.int32 if weight.numel() < 2**31 else torch.int64
    return draw.topk(count, sorted=False).indices.sort().values.to(small)


def enough(there: int, count: int) -> None:
    """Refuses more deltas than there are weights for them."""
    if count > there:
        hint = "a lower rank or density, or lower sparsity"
        raise Problem(f"a layer cannot have {count} sparse deltas: it has {there} weights for them", hint=hint)


def refuse_pattern(keep: BoolTensor, hint: str) -> None:
    """Refuses an N:M mask, in which no pruned weight can come back.

    Raises:
        Problem: Every group of the mask [out, in] keeps as many.
    """
    if found := pattern(keep):
        what = f"every group of {found[1]} keeps {found[0]}, and revived weights would break that pattern"
        raise Problem(what, hint=hint)


def pattern(keep: BoolTensor) -> tuple[int, int] | None:
    """Returns the N:M that a mask [out, in] has, M from 2 to 64 and narrower than a row, or None."""
    columns = keep.shape[1]
    for m in range(2, min(65, columns)):
        if columns % m == 0:
            counts = keep.view(-1, m).sum(1)
            n = int(counts[0])
            if 0 < n < m and bool((counts == n).all()):
                return n, m
    return None
