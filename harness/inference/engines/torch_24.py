"""PyTorch's semi-structured sparsity: 2 of every 4 weights kept, multiplied by the GPU's sparse tensor cores.

Half the products are left out in hardware; weights are half the values and two bits a kept one. It takes matrices whose
zeros already lie 2:4, and 16-bit values. Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from harness.inference.swap import prunable
from harness.problems import Problem

DEVICE = "cuda"
CAPABILITY = (8, 0)


def prepare(model: nn.Module, *, dtype: Literal["float16", "bfloat16"] = "float16") -> nn.Module:
    """2:4 weights on a GPU's sparse tensor cores, in PyTorch.

    Args:
        model: A model of transformers on the GPU.
        dtype: The type of weights and activations.

    Returns:
        The model.

    Raises:
        Problem: A layer has a group of 4 with more than 2 weights, or a shape that PyTorch does not take: which.
    """
    model = model.to(getattr(torch, dtype))
    for name in prunable(model):
        linear = model.get_submodule(name)
        if not is_24(linear.weight):
            hint = "prune with pattern 2:4; skip no layer"
            raise Problem("this layer's zeros do not lie 2:4", where=name, hint=hint)
        try:
            weight = torch.sparse.to_sparse_semi_structured(linear.weight.detach())
        except RuntimeError as error:
            what = f"PyTorch cannot hold this layer 2:4: {str(error).splitlines()[0].rstrip('.')}"
            raise Problem(what, where=name, hint="take triton_bitmask, which multiplies any shape") from error
        linear.weight = nn.Parameter(weight, False)
    return model


def is_24(weight: Tensor) -> bool:
    """Says whether every 4 neighbours of a row, [out, in], hold at most 2 that are not zero."""
    if weight.shape[1] % 4:
        return False
    return bool((weight.detach().unflatten(1, (-1, 4)).count_nonzero(-1) <= 2).all())


def available() -> str | None:
    """Returns why it cannot run here."""
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if torch.cuda.get_device_capability() < CAPABILITY:
        return f"{torch.cuda.get_device_name()} has no sparse tensor cores: they came with compute capability 8.0"
    return None


def exact() -> bool:
    """Says no: values are rounded to 16 bits."""
    return False
