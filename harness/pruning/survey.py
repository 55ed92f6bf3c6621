"""A survey of the dense model: what an allocation is told before the first layer is pruned.

It is one walk that prunes nothing. `NEEDS` names what there is, as the positional arguments of `allocate` do; see
`pruning.allocation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from harness.problems import Problem
from harness.pruning.recipe import Given
from harness.pruning.walk import KERNEL, walk
from harness.pruning.whole import Setup

NEEDS = ("weights", "norms", "scores", "kernels", "judge")
Judge = Callable[[Mapping[str, float]], float]


def survey(needs: Sequence[str], setup: Setup, judge: Judge) -> dict[str, Any]:
    """Returns what an allocation asks for.

    Args:
        needs: The names of its arguments after `layers` and `sparsity`.
        setup: The model, not yet pruned, and how it will be; its recipe has the criterion behind `scores`.
        judge: The trial of rates by layer.

    Raises:
        Problem: An argument that nothing provides, or scores of a solver, which has none.
    """
    if strange := [need for need in needs if need not in NEEDS]:
        raise Problem(
            f"an allocation needs {strange[0]!r}, which nothing provides", hint="there is: " + ", ".join(NEEDS)
        )
    if "scores" in needs and setup.recipe.score is None:
        raise Problem("this allocation compares scores, and a solver has none", hint="prune by a criterion")
    statistics = {"norms": ["norm"], "kernels": [KERNEL], "scores": setup.recipe.needs}
    wanted = dict.fromkeys(statistic for need in needs for statistic in statistics.get(need, ()))
    seen: dict[str, dict[str, Tensor]] = {}
    for _, inputs in walk(setup.model, setup.batches, list(wanted), setup.blocks):
        seen.update(inputs)
    linears = {linear.name: linear for block in setup.blocks for linear in block.linears}
    weights = {name: linear.module.weight.detach() for name, linear in linears.items()}
    given = {name: setup.given(linear, seen) for name, linear in linears.items()}
    offers = {
        "weights": lambda: weights,
        "norms": lambda: {name: seen[name]["norm"] for name in linears},
        "scores": lambda: _Scores(weights, given, setup.recipe.score),
        "kernels": lambda: {index: seen[block.name][KERNEL] for index, block in enumerate(setup.blocks)},
        "judge": lambda: judge,
    }
    return {need: offers[need]() for need in needs}


class _Scores(Mapping[str, Tensor]):
    """Scores by layer, computed when looked up: those of a whole model would be another model of 32-bit numbers."""

    def __init__(
        self, weights: Mapping[str, Tensor], given: Mapping[str, Given], score: Callable[[Tensor, Given], Tensor]
    ) -> None:
        self._weights, self._given, self._score = weights, given, score

    def __getitem__(self, name: str) -> Tensor:
        return self._score(self._weights[name], self._given[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
