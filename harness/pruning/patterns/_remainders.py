"""Rates rounded to whole counts so that the overall sparsity is met: the largest remainders are rounded up."""

from __future__ import annotations

from collections.abc import Mapping

from harness.pruning.patterns._smallest import count


def rounded(rates: Mapping[str, float], units: Mapping[str, tuple[int, int]], sparsity: float) -> dict[str, float]:
    """Returns rates that are whole counts of each layer's units and together come close below the overall sparsity.

    Rounding every layer's count down, as the released allocations do, loses up to a unit a layer: a model with 64
    columns asked for 70% gets 69.1%. Here the layers with the largest remainders get one unit more, as long as the
    zeros of all layers stay at or below floor(size of all * sparsity); of equal remainders the first layer's.
    No layer moves by a whole unit, and rates that are all equal stay as they are, the papers' floor in every layer.

    Args:
        rates: Fraction of zeros by layer.
        units: How many units a layer has, and how many weights go with each (unstructured by row: a unit is one weight
            of every row).
        sparsity: Fraction of zeros over all layers.
    """
    if max(rates.values()) - min(rates.values()) <= 1e-12:
        return dict(rates)
    counts = {name: count(units[name][0], rate) for name, rate in rates.items()}
    size = sum(number * weights for number, weights in units.values())
    left = count(size, sparsity) - sum(counts[name] * weights for name, (_, weights) in units.items())
    remainders = {name: round(units[name][0] * rate - counts[name], 9) for name, rate in rates.items()}
    for name in sorted(rates, key=remainders.get, reverse=True):
        if remainders[name] > 0 and units[name][1] <= left:
            counts[name] += 1
            left -= units[name][1]
    return {name: counts[name] / units[name][0] for name in rates}
