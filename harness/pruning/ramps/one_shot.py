"""One shot: straight from the dense model to the sparsity asked for."""

from __future__ import annotations


def targets(sparsity: float) -> list[float]:
    """One shot: one walk, at the sparsity asked for."""
    return [sparsity]
