"""ATP with the search for its beta: the one of step, 2 step, ... <= beta_max whose pruned model has the lowest loss.

arXiv:2502.14770 and released script, which stops at the first illegal beta and never tries 0. What the judge reads
decides what the result may be compared with. The released script reads the test split (`prune.search_split: test`), so
that beta is tuned on the very number that is reported; the paper speaks of validation data, the clean protocol. That
setting is the whole difference between the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal

from harness.problems import Problem
from harness.pruning.allocation import Layer, atp
from harness.pruning.allocation._rates import ROUNDING
from harness.ranges import Count, Positive


def allocate(
    layers: Mapping[str, Layer],
    sparsity: float,
    judge: Callable[[Mapping[str, float]], float],
    *,
    step: Positive = 0.002,
    trials: Count | None = None,
    uniform: bool = False,
) -> dict[str, float]:
    """ATP, searched: the best of a grid of common differences, each judged by pruning the model.

    Args:
        layers: The prunable layers by name.
        sparsity: Fraction of zeros over all layers, in [0, 1).
        judge: From the sparsity of each layer to the loss of the model pruned so.
        step: The first common difference and the distance of the next.
        trials: That many differences, evenly up to the largest that is possible, instead of `step`: with few blocks the
            paper's step makes a hundred trials.
        uniform: Whether beta = 0 is tried too.

    Returns:
        The sparsity of each layer, one a block, for the beta of the lowest loss, the first of equals.

    Raises:
        Problem: No beta of the grid is possible (before anything is judged), or a loss is not a number.
    """
    tried = grid(atp.limits(layers, sparsity)[1], step, trials)
    best, least = None, math.inf
    for beta in [0.0] * uniform + tried:
        rates = atp.allocate(layers, sparsity, beta=beta)
        loss = judge(rates)
        if math.isnan(loss):
            raise Problem(f"the loss of the model pruned with beta={beta:g} is not a number")
        if loss < least:
            best, least = rates, loss
    if best is None:
        raise Problem(f"the loss is infinite for every beta from {tried[0]:g} to {tried[-1]:g}")
    return best


def grid(highest: float, step: float, trials: int | None) -> list[float]:
    """Returns the common differences to try, in rising order, multiples of the step as they are written in decimals."""
    if math.isinf(highest):
        raise Problem("one block has no depth over which sparsity could rise", hint="use uniform")
    if highest > 0 and trials:
        return [highest * trial / trials for trial in range(1, trials + 1)]
    if highest < step:
        raise Problem(
            f"no common difference fits: the first is {step:g}, the largest possible {highest:.4g}",
            hint="give a smaller step, or a number of trials",
        )
    return [float(Decimal(repr(step)) * trial) for trial in range(1, int(highest * (1 + ROUNDING) / step) + 1)]
