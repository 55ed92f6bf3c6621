"""Erdős-Rényi plus: the last layer stays dense, the others share its zeros by Erdős-Rényi.

Liu et al., "The Unreasonable Effectiveness of Random Pruning", arXiv:2202.02643. The last layer there is the
classifier; a language model's head is never pruned here, so it is the last prunable layer, which is the last block's.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.allocation._erdos_renyi import densities
from harness.pruning.allocation._rates import checked


def allocate(layers: Mapping[str, Layer], sparsity: float) -> dict[str, float]:
    """Erdős-Rényi plus: the last layer dense, the others by their shapes.

    Args:
        layers: The prunable layers by name, in execution order.
        sparsity: Fraction of zeros over all layers, in [0, 1).

    Returns:
        The sparsity of each layer.

    Raises:
        Problem: The last layer alone has more weights than may stay.
    """
    *others, last = layers
    total = sum(layer.size for layer in layers.values())
    budget = (1 - sparsity) * total - layers[last].size
    if budget < 0:
        highest = 1 - layers[last].size / total
        raise Problem(
            f"a dense last layer allows a sparsity of at most {highest:.4g}, not {sparsity:g}",
            where=last,
            hint="er has no such layer",
        )
    kept = densities({name: layers[name] for name in others}, budget)
    return checked({name: 1 - kept.get(name, 1.0) for name in layers}, "er has no dense layer")
