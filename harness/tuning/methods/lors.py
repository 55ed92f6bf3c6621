"""LoRS: `y = x [(W + s B A) o M]^T` that keeps nothing of the weight's size, s = alpha / sqrt(rank).

Hu et al., arXiv:2501.08582, and their released code. The masked weight is made again in the backward, whose input
gradient is exact, and A and B get the gradients that thin products give: `dB = G^T (x A^T)`, `dA = (G B)^T x`. These
are not the function's own: the mask is left out of them, without which they could not be rearranged, and so is s, which
AdamW does not notice but a clip by global norm does. `masked_gradient` and `scaled_gradient` put them in; both together
are the exact gradient.

Training begins at the pruned model: A is the first `rank` right singular vectors of the mean gradient over `samples`
training examples, divided by gamma, and B is 0, so that the first step moves B A along the gradient's main directions
(after LoRA-GA, arXiv:2407.05000, which must subtract its first product from W).

Different from the release: A and B are named as everywhere else, A [rank, in] and B [out, rank], where it has them the
other way round; the mask is that of pruning and not `W != 0`, which loses a kept weight that is 0; and the masked
weight is made in bands that fit a cache (`_masked_product.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import BoolTensor, Tensor

from harness.problems import Problem
from harness.ranges import Count, Positive
from harness.tuning.bits import Bits
from harness.tuning.methods._masked_product import Update, merged, product
from harness.tuning.methods.lora import factors

FREEZES = True
RANK = "rank"
GRADIENT = {"init": "gradient"}
ONLY_WITH = {"samples": {"init": "gradient"}, "gamma": {"init": "gradient"}}
POWER_ITERATIONS = 4
OVERSAMPLING = 4


def prepare(
    weight: Tensor,
    keep: BoolTensor,
    gradient: Tensor | None,
    *,
    rank: Count = 16,
    samples: Count = 128,
    init: Literal["gradient", "kaiming"] = "gradient",
    gamma: Positive = 1.0,
) -> dict[str, Tensor]:
    """A masked low-rank update that merges into the zeros, as lean as LoRA.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
        gradient: The mean gradient of the loss [out, in], pruned weights included; None for another `init`.
        rank: Rows of A and columns of B.
        samples: Training examples that the gradient is the mean of.
        init: What A begins with: the gradient's main input directions, or LoRA's uniform numbers.
        gamma: Divides the directions.

    Returns:
        `lora_A` [rank, in] and `lora_B` [out, rank], in float32 at least.

    Raises:
        Problem: A layer has no such rank, or its gradient is 0.
    """
    begin = factors(weight, rank)
    if init == "gradient":
        begin["lora_A"] = (directions(gradient, rank) / gamma).to(begin["lora_A"])
    return begin


def directions(gradient: Tensor, rank: int) -> Tensor:
    """Returns the first right singular vectors [rank, in] of a gradient [out, in], by a randomised decomposition.

    It draws from torch's generator, so a seed gives the same vectors.

    Args:
        gradient: [out, in].
        rank: How many, at most its smaller side.

    Raises:
        Problem: The gradient is 0.
    """
    if not gradient.any():
        raise Problem("the gradient is 0 and has no direction", where="init", hint="init=kaiming needs none")
    drawn = min(OVERSAMPLING * rank, *gradient.shape)
    return torch.svd_lowrank(gradient.float(), q=drawn, niter=POWER_ITERATIONS)[2].T[:rank]


def adapt(
    x: Tensor,
    weight: Tensor,
    keep: Bits,
    trained: Mapping[str, Tensor],
    *,
    alpha: Positive = 16.0,
    masked_gradient: bool = False,
    scaled_gradient: bool = False,
) -> Tensor:
    """Returns x [(W + s B A) o M]^T, [..., out].

    Args:
        x: [..., in].
        weight: [out, in], sparse and frozen.
        keep: [out, in].
        trained: `lora_A` [rank, in] and `lora_B` [out, rank].
        alpha: Numerator of the scale.
        masked_gradient: Gradients of A and B through the mask, which needs the whole weight's; the release has none.
        scaled_gradient: Gradients of A and B with the factor s; the release has none.
    """
    a, b = (trained[name] for name in ("lora_A", "lora_B"))
    return product(x, weight, keep, a, b, Update(_scale(a, alpha), masked_gradient, scaled_gradient))


def merge(weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor], *, alpha: Positive = 16.0) -> Tensor:
    """Returns (W + s B A) o M [out, in], computed in float32 at least."""
    a, b = (trained[name] for name in ("lora_A", "lora_B"))
    return merged(weight, keep, a, b, _scale(a, alpha))


def _scale(a: Tensor, alpha: float) -> float:
    return alpha / math.sqrt(len(a))
