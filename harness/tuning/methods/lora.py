"""LoRA: `y = x W^T + s (x A^T) B^T`, W frozen, s = alpha / rank.

Hu et al., arXiv:2106.09685, section 4, with the initialisation of its release and of the library peft: A uniform
(Kaiming, a = sqrt 5), B zero, so that training begins at the pruned model. `rslora` scales by alpha / sqrt(rank)
(Kalajdzievski, arXiv:2312.03732). Dropout is on the adapter's input alone.

B A is dense: added to W it fills the zeros, so the result is the pruned model with the adapter beside it
(`tuning/adapter.py` writes it as peft reads it). The layers are not peft's own: peft replaces modules and owns the
training state, whereas a method here is functions on one layer's tensors, that checkpoints and several devices find
where they find every other method's; the outputs and gradients are peft's, and the tests compare them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import BoolTensor, Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import linear

from harness.problems import Problem
from harness.ranges import Count, Positive, Sparsity
from harness.tuning.bits import Bits

FREEZES = True
RANK = "rank"
MERGES = False


def prepare(weight: Tensor, keep: BoolTensor, *, rank: Count = 16) -> dict[str, Tensor]:
    """A low-rank adapter beside the frozen sparse weight; merged it would be dense.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
        rank: Rows of A and columns of B.

    Returns:
        `lora_A` [rank, in] and `lora_B` [out, rank], in float32 at least.

    Raises:
        Problem: The weight has no such rank.
    """
    return factors(weight, rank)


def factors(weight: Tensor, rank: int) -> dict[str, Tensor]:
    """Returns A [rank, in], uniform in +- 1/sqrt(in), and B [out, rank] of zeros, in float32 at least.

    Raises:
        Problem: The weight has no such rank: further columns of B would only repeat the others.
    """
    if rank > min(weight.shape):
        what = f"a layer of {weight.shape[0]} outputs and {weight.shape[1]} inputs has no rank {rank}"
        raise Problem(what, where="rank", hint=f"at most {min(weight.shape)} for this one")
    wide = torch.promote_types(weight.dtype, torch.float32)
    a = weight.new_empty(rank, weight.shape[1], dtype=wide)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))
    return {"lora_A": a, "lora_B": weight.new_zeros(len(weight), rank, dtype=wide)}


def adapt(
    x: Tensor,
    weight: Tensor,
    keep: Bits,
    trained: Mapping[str, Tensor],
    training: bool,
    *,
    alpha: Positive = 16.0,
    dropout: Sparsity = 0.0,
    rslora: bool = False,
) -> Tensor:
    """Returns x W^T + s (x A^T) B^T, [..., out].

    Args:
        x: [..., in].
        weight: [out, in], sparse and frozen.
        keep: [out, in]; not needed, since nothing is merged.
        trained: `lora_A` [rank, in] and `lora_B` [out, rank].
        training: Whether the layer is in training mode, on which dropout depends.
        alpha: Numerator of the scale.
        dropout: Probability to drop an input of the adapter.
        rslora: Divides alpha by the root of the rank.
    """
    a, b = (trained[name] for name in ("lora_A", "lora_B"))
    inner = dropped(x, dropout, training)
    if not torch.is_autocast_enabled(x.device.type):
        inner = inner.to(a.dtype)
    y = linear(x, weight)
    return y + linear(linear(inner, a) * scale(trained, alpha, rslora), b).to(y.dtype)


def merge(
    weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor], *, alpha: Positive = 16.0, rslora: bool = False
) -> Tensor:
    """Returns W + s B A [out, in], which is dense."""
    a, b = (trained[name] for name in ("lora_A", "lora_B"))
    return torch.addmm(weight.to(a.dtype), b, a, alpha=scale(trained, alpha, rslora)).to(weight.dtype)


def scale(trained: Mapping[str, Tensor], alpha: float, rslora: bool = False) -> float:
    """Returns s: alpha / rank, or alpha / sqrt(rank)."""
    rank = len(trained["lora_A"])
    return alpha / (math.sqrt(rank) if rslora else rank)


def dropped(x: Tensor, dropout: float, training: bool) -> Tensor:
    """Returns an adapter's input after dropout, x itself where nothing is dropped."""
    return drop(x, dropout) if dropout and training else x
