"""A survey of the model as a turn of the ramp finds it: what an allocation is told before a layer is pruned.

It is one walk that prunes nothing. `NEEDS` names what there is, as the positional arguments of `allocate` do; see
`pruning.allocation`. What the criterion needs for its scores waits on the CPU, so that only one block's statistics are
on the device: the Gram matrices of a whole model can outweigh it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from harness.models import Linear
from harness.problems import Problem
from harness.pruning.walk import KERNEL, Inputs, walk
from harness.pruning.whole import Setup

NEEDS = ("weights", "norms", "scores", "kernels", "judge")
Judge = Callable[[Mapping[str, float]], float]


def survey(needs: Sequence[str], setup: Setup, judge: Judge) -> dict[str, Any]:
    """Returns what an allocation asks for.

    Args:
        needs: The names of its arguments after `layers` and `sparsity`.
        setup: The model as it is, and how it will be pruned; its recipe has the criterion behind `scores`.
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
    statistics = {"norms": ("norm",), "kernels": (KERNEL,), "scores": setup.recipe.scoring}
    wanted = dict.fromkeys(statistic for need in needs for statistic in statistics.get(need, ()))
    norms: dict[str, Tensor] = {}
    kernels: dict[int, Tensor] = {}
    waiting: Inputs = {}
    for index, (block, inputs) in enumerate(walk(setup.model, setup.batches, list(wanted), setup.blocks)):
        if "kernels" in needs:
            kernels[index] = inputs[block.name][KERNEL]
        if "norms" in needs:
            norms.update({linear.name: inputs[linear.name]["norm"] for linear in block.linears})
        if "scores" in needs:
            waiting.update(_on_cpu(inputs, block.linears, setup.recipe.scoring))
    linears = {linear.name: linear for block in setup.blocks for linear in block.linears}
    offers = {
        "weights": {name: linear.module.weight.detach() for name, linear in linears.items()},
        "norms": norms,
        "scores": _Scores(setup, linears, waiting),
        "kernels": kernels,
        "judge": judge,
    }
    return {need: offers[need] for need in needs}


def _on_cpu(inputs: Inputs, linears: Sequence[Linear], needs: Sequence[str]) -> Inputs:
    """Returns what the scores of these linears need, on the CPU; a statistic that several share is moved once."""
    shared = {id(inputs[linear.name][need]): inputs[linear.name][need] for linear in linears for need in needs}
    moved = {key: value.cpu() for key, value in shared.items()}
    return {linear.name: {need: moved[id(inputs[linear.name][need])] for need in needs} for linear in linears}


class _Scores(Mapping[str, Tensor]):
    """Scores by layer, computed when looked up: those of a whole model would be another model of 32-bit numbers."""

    def __init__(self, setup: Setup, linears: Mapping[str, Linear], waiting: Inputs) -> None:
        self._setup, self._linears, self._waiting = setup, linears, waiting

    def __getitem__(self, name: str) -> Tensor:
        linear = self._linears[name]
        weight = linear.module.weight.detach()
        inputs = {need: value.to(weight.device) for need, value in self._waiting[name].items()}
        return self._setup.recipe.score(weight, self._setup.given(linear, {name: inputs}))

    def __iter__(self) -> Iterator[str]:
        return iter(self._linears)

    def __len__(self) -> int:
        return len(self._linears)
