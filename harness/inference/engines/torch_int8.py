"""PyTorch's dynamic quantisation: int8 weights, activations rounded to 8 bits at every call, int8 products.

    W ~ s_row Q,  x ~ s (q - z) with s and z of this call's smallest and largest activation

Weights are rounded by row. Zeros are multiplied like the rest: this is the dense int8 that a sparse int8 engine has to
beat. The routines stand in `torch.ao.quantization`, which PyTorch calls deprecated in favour of the package torchao and
still has.
"""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import nn

from harness.inference.swap import head, prunable

DEVICE = "cpu"


def prepare(model: nn.Module, *, head: Literal["keep", "int8"] = "keep") -> nn.Module:
    """Dense int8 weights and 8-bit activations: PyTorch's dynamic quantisation.

    Args:
        model: A model of transformers, float32.
        head: Whether the output layer is quantised too.

    Returns:
        The model.
    """
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    names = chosen(model, head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantize_dynamic(model, dict.fromkeys(names, per_channel_dynamic_qconfig), torch.qint8, inplace=True)


def chosen(model: nn.Module, which: str) -> list[str]:
    """Returns the names of the prunable linears and, for "int8", of the output layer."""
    output = head(model) if which == "int8" else None
    return [*prunable(model), *([output] if output else [])]


def available() -> str | None:
    """Returns why PyTorch cannot quantise here."""
    if not hasattr(getattr(torch.ao, "quantization", None), "quantize_dynamic"):
        return f"PyTorch {torch.__version__} has no torch.ao.quantization any more"
    if set(torch.backends.quantized.supported_engines) <= {"none", "qnnpack"}:
        return "this build of PyTorch has no int8 kernels for this processor"
    return None


def exact() -> bool:
    """Says no: weights and activations are rounded to 8 bits."""
    return False
