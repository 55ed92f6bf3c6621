"""Roundings: which value of the grid each weight takes, `round(weight, keep, grid, gram?) -> Rounded`.

The grid is given, spread over the weights as they are; pruned weights get the code of 0 whatever the rounding does. A
positional argument beyond these three names an input statistic (`harness.pruning.statistics`) that the walk collects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Rounded:
    """A rounded layer.

    Attributes:
        codes: Whole numbers of the grid, int8 [out, in]; the code of 0 where `keep` is False.
        facts: What a reader of the result should know, such as the damping that was used.
    """

    codes: Tensor
    facts: Mapping[str, float] = field(default_factory=dict)
