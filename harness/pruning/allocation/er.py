"""Erdős-Rényi: the share of weights that stay is proportional to (out + in) / (out * in), at most 1.

Mocanu et al., arXiv:1707.04780, scaled to a sparsity as in RigL (Evci et al., arXiv:1911.11134; for linear layers its
"kernel" variant is the same). Small layers stay denser. The shape alone decides, so all blocks of one kind get the same
rates.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.pruning.allocation import Layer
from harness.pruning.allocation._erdos_renyi import densities
from harness.pruning.allocation._rates import checked


def allocate(layers: Mapping[str, Layer], sparsity: float) -> dict[str, float]:
    """Erdős-Rényi: density by a layer's shape, small layers denser.

    Args:
        layers: The prunable layers by name.
        sparsity: Fraction of zeros over all layers, in [0, 1).

    Returns:
        The sparsity of each layer.
    """
    kept = densities(layers, (1 - sparsity) * sum(layer.size for layer in layers.values()))
    return checked({name: 1 - share for name, share in kept.items()}, "uniform takes any sparsity")
