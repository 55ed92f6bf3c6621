"""Dense weights: PyTorch's own matrix products, zeros multiplied like the rest. What every speed-up is over."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

DEVICE = "any"


def prepare(model: nn.Module, *, dtype: Literal["float32", "bfloat16"] = "float32") -> nn.Module:
    """Dense weights in PyTorch, zeros and all.

    Args:
        model: A model of transformers.
        dtype: The type of weights and activations; bfloat16 rounds both.

    Returns:
        The model.
    """
    return model.to(getattr(torch, dtype))


def available() -> str | None:
    """Returns None: it runs wherever PyTorch does."""
    return None


def exact(*, dtype: Literal["float32", "bfloat16"] = "float32") -> bool:
    """Says whether it rounds nothing."""
    return dtype == "float32"
