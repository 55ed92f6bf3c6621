"""Full fine-tuning with a fixed mask: `g <- g * keep; w <- update(w, g); w <- w * keep`.

The scheme of SquareHead's T5 and Whisper code (arXiv 2310.06927, TACO4NLP). Masking the gradient first keeps pruned
weights out of the clipping norm and their Adam moments at 0; masking the weight afterwards makes the zeros exact. The
paper's MPT code masks weights only, and switches clipping off for that reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import BoolTensor, Tensor


def prepare(weight: Tensor, keep: BoolTensor) -> dict[str, Tensor]:
    """Trains every weight that the mask keeps.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
    """
    return {"weight": weight.masked_fill(~keep, 0)}


def project(tensors: Mapping[str, Tensor], keep: BoolTensor) -> None:
    """Sets what was pruned to 0, in place; what is not finite there stays so, and the loop refuses that step.

    Args:
        tensors: The weight, or its gradient, [out, in], under the name "weight".
        keep: [out, in].
    """
    tensors["weight"].mul_(keep.view(torch.uint8))  # on a CPU 20 times faster than masked_fill_, 4 times than by bool


def merge(weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor]) -> Tensor:
    """Returns the trained weight [out, in], which is the layer's own."""
    return trained["weight"]
