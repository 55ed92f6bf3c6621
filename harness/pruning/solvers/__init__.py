"""Solvers: mask and remaining weights together, `solve(weight, gram, choose, sparsity, period) -> Solved`.

A solver is given `choose`, a pattern with its options bound, and decides when to call it: SparseGPT chooses on weights
that already compensate for the columns before. One that shows `choose` less than whole rows asks for the pattern's
`period` too. `GROUP` is the paper's comparison group in what `choose` is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Solved:
    """A pruned layer.

    Attributes:
        weight: [out, in], in the dtype it came in, exactly zero where `keep` is False.
        keep: Bool [out, in], True stays.
        slab: How many columns competed with each other; every such slab has exactly the sparsity asked for.
        facts: What a reader of the result should know, such as the damping that was used.
    """

    weight: Tensor
    keep: Tensor
    slab: int
    facts: Mapping[str, float] = field(default_factory=dict)


def zero(weight: Tensor, keep: Tensor) -> Tensor:
    """Makes the pruned weights exactly zero, in place, and returns the weights, which are finite.

    A product, and a sum that makes 0 of -0: many times quicker than a selection, which stumbles over a mask's entries.
    """
    return weight.mul_(keep).add_(0)
