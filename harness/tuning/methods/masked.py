"""Full fine-tuning with a fixed mask: `g <- g * keep` where it is made, `w <- update(w, g)`; nothing else is masked.

The scheme of SquareHead's T5 and Whisper code (arXiv 2310.06927, TACO4NLP), which masks gradients before the clip and
weights after every update. The second is not needed: a weight of 0 with a gradient of 0 and moments of 0 stays exactly
0 under AdamW, `0 (1 - lr decay) - lr 0 / (sqrt(0) + eps)`. So the gradient is masked in the layer's backward, while it
lies in a cache, and weights and moments only where a mask has changed: when a ramp prunes, or a checkpoint is loaded.
Checkpoints and the result are verified. The paper's MPT code masks weights only, and has no clip for that reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import BoolTensor, Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from harness.tuning.bits import Bits
from harness.tuning.methods._masked_product import bands, compute_dtype, flattened

PIECE = 2**17
"""Numbers that a CPU masks at once: the mask is written out in the tensor's type, which shall stay in a cache."""


def prepare(weight: Tensor, keep: BoolTensor) -> dict[str, Tensor]:
    """Trains every weight that the mask keeps.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
    """
    return {"weight": weight.masked_fill(~keep, 0)}


def project(tensors: Mapping[str, Tensor], keep: Bits) -> None:
    """Sets what was pruned to 0, in place; what is not finite there stays so, and the loop refuses that step.

    Args:
        tensors: The weight, its gradient or a moment of it, [out, in], under the name "weight".
        keep: [out, in].
    """
    for rows in bands(keep, PIECE):
        tensors["weight"][rows].mul_(keep.numbers(rows, tensors["weight"].dtype))


def adapt(x: Tensor, weight: Tensor, keep: Bits, trained: Mapping[str, Tensor]) -> Tensor:
    """Returns x W^T, [..., out], in autocast's type where that is on; W's gradient is 0 where it was pruned.

    Args:
        x: [..., in].
        weight: [out, in], 0 where keep is False.
        keep: [out, in].
        trained: The weight itself, which is not looked up here.
    """
    return _Linear.apply(x, weight, keep, compute_dtype(x))


def merge(weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor]) -> Tensor:
    """Returns the trained weight [out, in], which is the layer's own."""
    return trained["weight"]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, keep: Bits, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.keep, ctx.dtype = keep, dtype
        with torch.autocast(x.device.type, enabled=False):
            return linear(x.to(dtype), weight.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        at_x = at_weight = None
        with torch.autocast(x.device.type, enabled=False):
            slope = flattened(gradient, ctx.dtype)
            if ctx.needs_input_grad[0]:
                at_x = (slope @ weight.to(ctx.dtype)).view_as(x).to(x.dtype)
            if ctx.needs_input_grad[1]:
                at_weight = slope.t() @ flattened(x, ctx.dtype)
                project({"weight": at_weight}, ctx.keep)
        return at_x, None if at_weight is None else at_weight.to(weight.dtype), None, None
