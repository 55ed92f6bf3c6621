"""Activations in eight bits: the inputs of a loaded model's linears, rounded to a grid as they come.

    dynamic   each token by its own largest magnitude, x = a round(x / a), a = max|x| / 127     (SmoothQuant's O1)
    static    a whole tensor by the range that calibration saw, asymmetric, 0 among the values  (its O3; Sparse Llama)

SmoothQuant, arXiv:2211.10438, table 2. The products are those of integers, computed in floating point: what an int8
kernel gives, up to the order of its sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.problems import Problem

BITS = 8


@dataclass(frozen=True)
class Dynamic:
    """Each token on its own grid, symmetric about 0."""

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the inputs [..., columns] on their tokens' grids."""
        highest = 2 ** (BITS - 1) - 1
        wide = x.float()
        scale = wide.abs().amax(dim=-1, keepdim=True).div_(highest).clamp_(min=torch.finfo(torch.float32).tiny)
        return wide.div(scale).round_().mul_(scale).to(x.dtype)


@dataclass(frozen=True)
class Static:
    """Every token on one grid: value = scale * (code - zero), codes of eight bits; what lies beyond is cut off."""

    scale: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> Static:
        """Returns the grid between two values, 0 always within."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / (2**BITS - 1) or 1.0
        return cls(scale, round(-low / scale) - 2 ** (BITS - 1))

    def __call__(self, x: Tensor) -> Tensor:
        """Returns the inputs [..., columns] on the grid."""
        codes = x.float().div(self.scale).round_().add_(self.zero)
        codes.clamp_(-(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1)
        return codes.sub_(self.zero).mul_(self.scale).to(x.dtype)


Input = Dynamic | Static
"""How the inputs of a linear are rounded."""


def attach(model: nn.Module, inputs: Mapping[str, Input]) -> list[Any]:
    """Rounds the inputs of these linears from now on, in training too, where no gradient passes.

    Args:
        model: The model.
        inputs: How, by the linear's name.

    Returns:
        The hooks, to be removed.

    Raises:
        Problem: A name is no linear of the model.
    """
    hooks = []
    for name, rounded in inputs.items():
        module = dict(model.named_modules()).get(name)
        if not isinstance(module, nn.Linear):
            raise Problem("its inputs are to be quantised, and the model has no such linear layer", where=name)
        hooks.append(module.register_forward_pre_hook(lambda _, args, rounded=rounded: (rounded(args[0]), *args[1:])))
    return hooks
