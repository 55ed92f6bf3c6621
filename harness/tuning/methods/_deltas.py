"""Sparse deltas: `y = x (W + scatter(d at I))^T`; W is frozen, the n values d are trained, their positions I distinct.

SpIEL, Ansell et al., "Scaling Sparse Fine-Tuning to Large Language Models", arXiv:2401.16405, section 3; its release is
github.com/AlanAnsell/peft. The layer's effective weight is built anew in the forward and in the backward, so that the
input, W by reference, d and I alone lie between them; W + scatter(d) left to autograd would keep a second W a layer.

The gradient of d is gathered from the dense gradient gY^T X of one layer at a time, as in the release. To multiply only
the n pairs of columns was measured on a CPU: as fast where n is 0.5 % of the weights, two to three times slower at 2 %.
Memory is no reason either: the effective weight is as large, and is given up before the gradient is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import BoolTensor, Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear as product

from harness.problems import Problem

CLOSED = -1
"""A layer's count of gradients while none is looked at."""

Watch = Callable[[Tensor, Tensor], None]
"""Is shown the dense gradient [out, in] and the effective weight [out, in] of a layer, after each of its backwards."""


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, values: Tensor, indices: Tensor, count: Tensor, watch: Watch):
        ctx.save_for_backward(x, weight, values, indices)
        ctx.count, ctx.watch = count, watch
        return product(x, effective(weight, values, indices, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, values, indices = ctx.saved_tensors
        watched = int(ctx.count) != CLOSED
        whole = effective(weight, values, indices, x.dtype) if watched or ctx.needs_input_grad[0] else None
        at_x = slope @ whole if ctx.needs_input_grad[0] else None
        if not watched:
            del whole  # its memory is the dense gradient's
        gradient = slope.flatten(0, -2).T @ x.flatten(0, -2)
        at_values = gradient.view(-1)[indices.long()].to(values.dtype)
        if watched:
            ctx.watch(_of_all(gradient.float()), whole.float())
        return at_x, None, at_values, None, None, None


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
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
        if x.dtype == torch.float16:
            what = "sparse deltas look at gradients over several steps, and in fp16 these change their scale"
            raise Problem(what, where="precision", hint="write precision: bf16")
    return _Linear.apply(x, weight, values, indices, count, watch)


def effective(weight: Tensor, values: Tensor, indices: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Returns weight + deltas [out, in] in a new tensor; each sum is rounded once, to `dtype` (None: the weight's)."""
    positions = indices.long()
    whole = weight.detach().to(dtype or weight.dtype, copy=True)
    whole.view(-1)[positions] = (weight.detach().view(-1)[positions] + values.detach()).to(whole.dtype)
    return whole


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


def marked(positions: Tensor, among: Tensor) -> BoolTensor:
    """Returns a flat mask as long as the weight `among`, True at the positions."""
    mask = torch.zeros(among.numel(), dtype=torch.bool, device=among.device)
    mask[positions.long()] = True
    return mask
