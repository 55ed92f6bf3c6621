"""LoSA: `y = x W^T + dropout(x) Delta^T`, `Delta = c (B[:, :k] A[:k, :]) o M`, c = alpha / rank; it merges.

Huang et al., "Dynamic Low-Rank Sparse Adaptation for Large Language Models", arXiv:2502.14816, released code. With a
ramp the whole of it is

    tune:  {method: losa, ramp: "cubic:steps=5", restart: true, last: 0.6, warmup: 0.3, clip: 0.3, ...}
    prune: {criterion: wanda, allocation: rmi, ...}

At every step of the ramp the merged model is pruned at RMI's rates, and k, the slices that a block's layers use, is
allotted anew by the block's reconstruction error (`tuning/ranks.py`), around a mean that grows by `growth` a step.
Growing shows columns of B that are still 0, or those of an earlier step again; shrinking takes the last columns away.
With `pattern: unstructured:as_released=true` rates, masks, errors and ranks of all five steps are those of the released
functions (`tests/golden/losa.json`).

As released: k goes up to 16 but B has `rank` = 8 columns, so more than 8 acts as 8, and the later means of 9 and 10
mostly saturate. Different: the mask is that of pruning, where the code reads `W != 0` at every forward, and unmerging
puts the weight itself back, where the code subtracts Delta and drifts by its rounding. Before the first pruning, and
without a ramp, k is `rank`: masked LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import BoolTensor, Tensor
from torch.nn.functional import linear

from harness.ranges import Count, NonNegative, Positive, Sparsity
from harness.tuning import ranks
from harness.tuning.bits import Bits
from harness.tuning.methods._masked_product import Update, merged, product
from harness.tuning.methods.lora import dropped, factors

FREEZES = True
RANK = "rank"
RAMPS = ("mean", "growth", "budget")


def prepare(weight: Tensor, keep: BoolTensor, *, rank: Count = 8) -> dict[str, Tensor]:
    """A masked low-rank branch that merges into the zeros, its rank allotted to blocks by their error.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
        rank: Rows of A and columns of B: the most that a block can use.

    Returns:
        `lora_A` [rank, in], uniform, and `lora_B` [out, rank] of zeros, in float32 at least.
    """
    return factors(weight, rank)


def state(weight: Tensor, keep: BoolTensor, *, rank: Count = 8) -> dict[str, Tensor]:
    """Returns `slices` [], how many of them are in use: all."""
    return {"slices": torch.tensor(rank, device=weight.device)}


def allot(
    errors: Sequence[float],
    turn: int,
    *,
    mean: Positive = 6.0,
    growth: NonNegative = 1.0,
    budget: Literal["released", "exact"] = "released",
) -> list[dict[str, Tensor]]:
    """Returns `slices` for the layers of each block.

    Args:
        errors: Each block's reconstruction error.
        turn: Prunings done.
        mean: The mean rank after the first pruning.
        growth: What each further pruning adds to it.
        budget: Whether the ranks' sum is corrected in one pass, as released, or until it is met.
    """
    found = ranks.allocate(errors, mean + growth * (turn - 1), budget)
    return [{"slices": torch.tensor(each)} for each in found]


def adapt(
    x: Tensor,
    weight: Tensor,
    keep: Bits,
    trained: Mapping[str, Tensor],
    training: bool | None = None,
    *,
    alpha: Positive = 16.0,
    dropout: Sparsity = 0.1,
) -> Tensor:
    """Returns x W^T + dropout(x) Delta^T, [..., out]; the product is made again in the backward.

    Args:
        x: [..., in].
        weight: [out, in], sparse and frozen.
        keep: [out, in].
        trained: `lora_A` [rank, in], `lora_B` [out, rank] and `slices` [].
        training: Whether the layer is in training mode, on which dropout depends.
        alpha: Numerator of the scale, whose denominator is `rank` whatever is in use.
        dropout: Probability to drop an input of the branch.
    """
    a, b, scale = _used(trained, alpha)
    y = linear(x, weight)
    return y + product(dropped(x, dropout, training), None, keep, a, b, Update(scale)).to(y.dtype)


def merge(weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor], *, alpha: Positive = 16.0) -> Tensor:
    """Returns (W + Delta) o M [out, in], computed in float32 at least."""
    a, b, scale = _used(trained, alpha)
    return merged(weight, keep, a, b, scale)


def _used(trained: Mapping[str, Tensor], alpha: float) -> tuple[Tensor, Tensor, float]:
    """Returns the slices of A and B that are in use, and c."""
    a, b, count = (trained[name] for name in ("lora_A", "lora_B", "slices"))
    return a[:count], b[:, :count], alpha / len(a)
