"""LoRA*: LoRA on the pruned model, merged, then pruned back to its sparsity by the cell's own prune section.

    y = x W^T + s (x A^T) B^T,   then prune(W + s B A)

The baseline of SEFT (arXiv:2505.24037): what plain LoRA is worth where the result must be sparse. Merged the weights
are dense; the mask is chosen anew, by the same criterion, pattern, allocation, ramp and calibration as before, so it
may differ from the one that LoRA was trained around. What was trained is float32 and is pruned so, whatever
`prune.dtype` is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import BoolTensor, Tensor

from harness.ranges import Count, Positive, Sparsity
from harness.tuning.bits import Bits
from harness.tuning.methods import lora

FREEZES = True
RANK = "rank"
PRUNES = True


def prepare(weight: Tensor, keep: BoolTensor, *, rank: Count = 16) -> dict[str, Tensor]:
    """A low-rank adapter that is merged and pruned again as the model was.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
        rank: Rows of A and columns of B.

    Returns:
        `lora_A` [rank, in] and `lora_B` [out, rank], in float32 at least.
    """
    return lora.prepare(weight, keep, rank=rank)


def adapt(
    x: Tensor,
    weight: Tensor,
    keep: Bits,
    trained: Mapping[str, Tensor],
    training: bool | None = None,
    *,
    alpha: Positive = 16.0,
    dropout: Sparsity = 0.0,
    rslora: bool = False,
) -> Tensor:
    """Returns LoRA's output, [..., out].

    Args:
        x: [..., in].
        weight: [out, in], sparse and frozen.
        keep: [out, in].
        trained: `lora_A` [rank, in] and `lora_B` [out, rank].
        training: Whether the layer is in training mode, on which dropout depends.
        alpha: Numerator of the scale.
        dropout: Probability to drop an input of the adapter.
        rslora: Divides alpha by the root of the rank.
    """
    return lora.adapt(x, weight, keep, trained, training, alpha=alpha, dropout=dropout, rslora=rslora)


def merge(
    weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor], *, alpha: Positive = 16.0, rslora: bool = False
) -> Tensor:
    """Returns W + s B A [out, in], which is dense until it is pruned."""
    return lora.merge(weight, keep, trained, alpha=alpha, rslora=rslora)
