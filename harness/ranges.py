"""Ranges of options: a method annotates an option with one of these names, and every text that sets it is checked.

    def predict(..., *, beams: Count = 5)      beams=0 is refused wherever it is written

They are types of plain numbers to a type checker; `rooms` reads the name from the source and finds the bounds here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, get_args


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; an end that is `open` is not among them."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        low = "" if self.low == -math.inf else f"{'above' if self.low_open else 'at least'} {self.low:g}"
        high = "" if self.high == math.inf else f"{'below' if self.high_open else 'at most'} {self.high:g}"
        return " and ".join(filter(None, (low, high)))


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, low_open=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Sparsity = Annotated[float, Range(0, 1, high_open=True)]

RANGES: dict[str, tuple[str, Range]] = {
    name: (get_args(kind)[0].__name__, get_args(kind)[1])
    for name, kind in {
        "Count": Count,
        "Whole": Whole,
        "Positive": Positive,
        "NonNegative": NonNegative,
        "Fraction": Fraction,
        "Sparsity": Sparsity,
    }.items()
}
"""The plain type and the bounds behind each name."""
