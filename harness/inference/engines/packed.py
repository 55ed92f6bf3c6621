"""Weights packed without their zeros, expanded as they are read: this house's own formats and CPU kernels.

    bitmask, b bytes a value: bytes a weight = b (1 - sparsity) + 1/8

A decode step multiplies each weight once and is bound by reading them, so fewer bytes are fewer seconds. Linears that
read one input are packed as one matrix (q, k, v; gate and up), because a step's layers are small; and a whole step is
one call of compiled code where `harness/inference/native` knows the model's decoder (its `counts` says how many were).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from harness.inference import swap
from harness.problems import Problem

DEVICE = "cpu"


def prepare(
    model: nn.Module,
    *,
    format: str = "auto",
    precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32",
    head: Literal["keep", "int8"] = "keep",
    activations: Literal[14, 8] = 14,
    join: bool = True,
    native: bool = True,
) -> nn.Module:
    """Packed weights, expanded as they are read: our own kernels.

    Args:
        model: A model of transformers, float32; its prunable linears are packed.
        format: A format, or auto: for each matrix the one that its sparsity makes fastest.
        precision: The type of the packed values; int8 has a scale for every row, or the codes and scales that the model
            was quantised with.
        head: Whether the output layer, which is dense, stays as it is or becomes int8.
        activations: The bits of activations in products with int8 weights, a step for every token; 8 is what others
            call W8A8.
        join: Whether linears that read the same input become one matrix.
        native: Whether a decode step is one call of compiled code, where the model's family has a program for it.

    Returns:
        The model.
    """
    from harness.inference import grids
    from harness.inference.choice import pack
    from harness.inference.kernels.linear import PackedLinear
    from harness.inference.native import install

    def put(names: Sequence[str], format: str, precision: str) -> None:
        grid = grids.joined([model.get_submodule(name) for name in names]) if precision == "int8" else None
        bits = activations if precision == "int8" else 14

        def packed(weight: Tensor, bias: Tensor | None) -> nn.Module:
            return PackedLinear(pack(weight, format, precision, grid=grid), bias, activations=bits)

        swap.swap(model, [names], packed)

    if activations == 8 and "int8" not in (precision, head):
        raise Problem("activations of 8 bits go with int8 weights", hint="write precision=int8, or head=int8")
    names = swap.prunable(model)
    output = swap.head(model) if head == "int8" else None
    if head == "int8" and output is None:
        raise Problem(f"{type(model).__name__} has no linear output layer", hint="write head=keep")
    for group in swap.groups(model, names) if join else [(name,) for name in names]:
        for alike in grids.alike(model, group) if precision == "int8" else [group]:
            put(alike, format, precision)
    if output:
        put((output,), "dense", "int8")
    if native:
        install(model)
    return model


def available() -> str | None:
    """Returns why there are no compiled kernels here."""
    from harness.inference.kernels import build

    return build.reason()


def exact(
    *, precision: Literal["fp32", "bf16", "fp16", "int8"] = "fp32", head: Literal["keep", "int8"] = "keep"
) -> bool:
    """Says whether neither the packed values nor the output layer are rounded."""
    return precision == "fp32" and head == "keep"
