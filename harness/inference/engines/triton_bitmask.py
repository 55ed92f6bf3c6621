"""Packed weights on a GPU: the bitmask format, expanded in registers as it is read, in Triton.

    bytes a weight = b (1 - sparsity) + 1/8 + 9/256        b = 2 (16-bit values) or 1 (int8, a scale a row)

Any sparsity pattern will do; what is saved is reading, not arithmetic, so it is for steps of few tokens. For longer
inputs a kernel expands the weights into the type of the activations, and cuBLAS multiplies by them. The kernels were
run in Triton's interpreter and compiled for an H100; nobody has timed them yet (`harness bench linear --device cuda`).
"""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch
from torch import Tensor, nn

from harness.inference.engines._places import places
from harness.inference.swap import groups, prunable, swap
from harness.problems import Problem

DEVICE = "cuda"
MOST_ROWS = 16
"""Rows of activations that the kernel multiplies; more are multiplied dense."""


def prepare(
    model: nn.Module,
    *,
    precision: Literal["fp16", "bf16", "int8"] = "fp16",
    dtype: Literal["float16", "bfloat16"] = "float16",
    join: bool = True,
) -> nn.Module:
    """Packed weights on a GPU, expanded as they are read: a Triton kernel.

    Args:
        model: A model of transformers on the GPU.
        precision: The type of the packed values.
        dtype: The type of activations and of all other weights.
        join: Whether linears that read the same input become one matrix.

    Returns:
        The model.

    Raises:
        Problem: int8 of a model that is quantised, whose codes this engine does not take.
    """
    names = prunable(model)
    grid = next((name for name in names if getattr(model.get_submodule(name), "grid", None)), None)
    if precision == "int8" and grid:
        hint = "write precision=fp16, which holds its values, or take the packed engine, which takes its codes"
        raise Problem("this engine would round a quantised model anew", where=grid, hint=hint)
    together = groups(model, names) if join else [(name,) for name in names]
    swap(model, together, lambda weight, bias: BitmaskLinear(weight, bias, precision).to(weight.device))
    return model.to(getattr(torch, dtype))


class BitmaskLinear(nn.Module):
    """y = W x + b with W [out, in] in the bitmask format."""

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: str) -> None:
        """Packs a weight, which may be anywhere, into tensors on the CPU."""
        from harness.inference.formats import pack

        super().__init__()
        packed = pack(weight.detach().float().cpu(), "bitmask", precision)
        self.shape = packed.shape
        for name, tensor in zip(("mask", "starts", "offsets"), places(packed.tensors["mask"]), strict=True):
            self.register_buffer(name, tensor)
        # as bytes: a model that is cast to another type casts its buffers of floating-point numbers
        self.kind = packed.tensors["values"].dtype
        self.register_buffer("stored", packed.tensors["values"].view(torch.uint8))
        scales = packed.tensors.get("scales")
        self.register_buffer("steps", None if scales is None else scales.view(torch.uint8))
        self.register_buffer("bias", bias)

    @property
    def values(self) -> Tensor:
        """The packed values in their own type."""
        return self.stored.view(self.kind)

    @property
    def scales(self) -> Tensor | None:
        """The scale of each row, float32 [out, 1]; None where values have none."""
        return None if self.steps is None else self.steps.view(torch.float32)

    @property
    def bytes(self) -> int:
        """What a product reads of the weights from memory."""
        return sum(tensor.nbytes for name, tensor in self.named_buffers() if name != "bias")

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., out] for [..., in], in x's type."""
        from harness.inference.engines._triton_kernel import multiply

        flat = x.reshape(-1, x.shape[-1])
        if not len(flat) or len(flat) > MOST_ROWS:
            return nn.functional.linear(x, self.expanded(x.dtype), self.bias)
        held = (self.mask, self.values, self.starts, self.offsets, self.scales)
        return multiply(*held, self.bias, flat.contiguous()).reshape(*x.shape[:-1], -1)

    def expanded(self, dtype: torch.dtype) -> Tensor:
        """Returns the weights with their zeros, [out, in] in a type."""
        from harness.inference.engines._triton_kernel import expand

        held = (self.mask, self.values, self.starts, self.offsets, self.scales)
        return expand(*held, self.shape[1], dtype)


def available() -> str | None:
    """Returns why it cannot run here."""
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    return None


def exact() -> bool:
    """Says no: values are rounded to 16 bits or fewer."""
    return False
