"""N:M sparsity: of every M consecutive inputs of a row, the N with the highest scores stay.

N counts the weights that are KEPT (so 16:64 is 75% sparse), where the code of Wanda and OWL counts zeros; the two agree
only for N = M/2. Any N and M go where M divides the layer's width; GPUs accelerate 2:4 alone.

Of equal scores the first columns go. The released code leaves them to `topk`, which promises no order: in 16-bit
weights ties are so many that one group in eight of a 2:4 magnitude mask comes out otherwise (SmolLM2-135M on a CPU).
Scores that look at inputs do not tie. `choose_as_released` leaves them to `topk` too; it takes the place of `choose`
where a solver or refiner is asked to be `as_released` (`pruning.recipe`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.patterns._groups import divides, highest
from harness.ranges import Count

PERIOD = "m"


def choose(scores: Tensor, sparsity: float, *, n: Count = 2, m: Count = 4) -> Tensor:
    """N:M: n of every m consecutive inputs stay.

    Args:
        scores: [out, in], larger is kept.
        sparsity: Fraction of zeros; the pattern itself fixes it at 1 - n/m.
        n: How many stay.
        m: Size of a group.

    Returns:
        Bool [out, in], True stays.

    Raises:
        Problem: n > m, a sparsity other than 1 - n/m, or a width that m does not divide.
    """
    _fixes(sparsity, n, m)
    return highest(scores, n, m)


def choose_as_released(scores: Tensor, sparsity: float, *, n: Count = 2, m: Count = 4) -> Tensor:
    """As `choose`, but of equal scores those go that `topk` finds first on this device."""
    _fixes(sparsity, n, m)
    divides(scores.shape[1], m)
    groups = scores.reshape(-1, m).float()
    gone = groups.topk(m - n, dim=1, largest=False).indices
    return torch.ones_like(groups, dtype=torch.bool).scatter_(1, gone, False).view(scores.shape)


def fit(
    rates: Mapping[str, float], layers: Mapping[str, Layer], sparsity: float, *, n: Count = 2, m: Count = 4
) -> dict[str, float]:
    """Returns the rates as they are, if every layer is asked for the one sparsity there is.

    Args:
        rates: Fraction of zeros by layer.
        layers: The layers.
        sparsity: Fraction of zeros over all layers.
        n: How many stay.
        m: Size of a group.

    Raises:
        Problem: A rate other than 1 - n/m, or a width that m does not divide; the layer is named.
    """
    for name, rate in rates.items():
        _fixes(rate, n, m, name)
        divides(layers[name].shape[1], m, name)
    return dict(rates)


def _fixes(sparsity: float, n: int, m: int, layer: str | None = None) -> None:
    if not 0 < n <= m:
        raise Problem(f"{n}:{m} cannot keep {n} of {m} weights", hint="N is how many stay")
    if not math.isclose(sparsity, 1 - n / m, abs_tol=1e-9):
        raise Problem(
            f"{n}:{m} is a sparsity of {1 - n / m:g}, not {sparsity:g}",
            where=layer,
            hint=f"N is how many stay, every layer alike; mixed_nm:m={m} takes a rate for each layer",
        )
