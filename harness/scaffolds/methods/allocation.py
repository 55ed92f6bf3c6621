"""New method: the same sparsity in every layer, to begin with.

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.pruning.allocation import Layer


def allocate(layers: Mapping[str, Layer], sparsity: float) -> dict[str, float]:
    """New method: the same sparsity in every layer, to begin with.

    Args:
        layers: Shape, block and part of each prunable layer by name.
        sparsity: Fraction of zeros over all of them, in [0, 1); their mean, weighted by `size`, keeps it.

    Returns:
        Sparsity of each layer.
    """
    return dict.fromkeys(layers, sparsity)
