"""Uniform allocation: s_l = S for every layer l."""

from __future__ import annotations

from collections.abc import Mapping

from harness.pruning.allocation import Layer


def allocate(layers: Mapping[str, Layer], sparsity: float) -> dict[str, float]:
    """Uniform: the same sparsity in every layer.

    Args:
        layers: The prunable layers by name.
        sparsity: Fraction of zeros over all layers, in [0, 1).

    Returns:
        The sparsity of each layer.
    """
    return dict.fromkeys(layers, sparsity)
