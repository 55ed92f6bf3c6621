"""Densities that grow as layers get thinner: d_l = c (out + in) / (out * in), at most 1, with c set by a budget."""

from __future__ import annotations

from collections.abc import Mapping

from harness.pruning.allocation import Layer


def densities(layers: Mapping[str, Layer], budget: float) -> dict[str, float]:
    """Returns the share of weights that each layer keeps, `budget` weights in all.

    A layer that the common factor c would give more weights than it has stays dense, and c is solved again for the
    others; that only raises c, so a layer once dense stays so and the loop ends.

    Args:
        layers: The layers by name.
        budget: How many weights stay, from 0 to their number.
    """
    dense: set[str] = set()
    while True:
        thin = {name: sum(layer.shape) for name, layer in layers.items() if name not in dense}
        left = budget - sum(layers[name].size for name in dense)
        factor = left / sum(thin.values()) if thin else 0.0
        full = {name for name, width in thin.items() if factor * width > layers[name].size}
        if not full:
            return {name: 1.0 if name in dense else factor * thin[name] / layers[name].size for name in layers}
        dense |= full
