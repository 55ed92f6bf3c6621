"""What allocations share: the blocks and their sizes, one rate a block, and the check that a rate is one."""

from __future__ import annotations

from collections.abc import Mapping

from harness.problems import Problem
from harness.pruning.allocation import Layer

ROUNDING = 1e-9
"""A rate may leave [0, 1] by this much, which is arithmetic's doing, and is put back on the end."""


def block_sizes(layers: Mapping[str, Layer]) -> dict[int, int]:
    """Returns how many prunable weights each block has, by its index, in execution order."""
    sizes: dict[int, int] = {}
    for layer in layers.values():
        sizes[layer.block] = sizes.get(layer.block, 0) + layer.size
    return dict(sorted(sizes.items()))


def by_block(layers: Mapping[str, Layer], rates: Mapping[int, float], hint: str) -> dict[str, float]:
    """Returns its block's rate for every layer, checked."""
    return checked({name: float(rates[layer.block]) for name, layer in layers.items()}, hint)


def checked(rates: Mapping[str, float], hint: str) -> dict[str, float]:
    """Returns the rates, all of them in [0, 1].

    Args:
        rates: Sparsity by layer name.
        hint: Which option of the allocation would bring a rate back.

    Raises:
        Problem: One is outside, or is no number; its layer is named.
    """
    for name, rate in rates.items():
        if not -ROUNDING <= rate <= 1 + ROUNDING:
            raise Problem(f"its sparsity would be {rate:.4g}, which is not in [0, 1]", where=name, hint=hint)
    return {name: min(max(rate, 0.0), 1.0) for name, rate in rates.items()}
