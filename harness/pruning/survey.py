"""A survey of the model as a turn of the ramp finds it: what an allocation is told before a layer is pruned.

It is one walk that prunes nothing. `NEEDS` names what there is, as the positional arguments of `allocate` do; see
`pruning.allocation`. What the criterion needs for its scores waits on the CPU, so that only one block's statistics are
on the device: the Gram matrices of a whole model can outweigh it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from harness.models import Linear
from harness.problems import Problem
from harness.pruning.shares import full
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
        "weights": _ByLayer(linears, lambda name: _weight(linears[name])),
        "norms": norms,
        "scores": _ByLayer(linears, lambda name: _scores(setup, linears[name], waiting[name])),
        "kernels": kernels,
        "judge": judge,
    }
    return {need: offers[need] for need in needs}


def _on_cpu(inputs: Inputs, linears: Sequence[Linear], needs: Sequence[str]) -> Inputs:
    """Returns what the scores of these linears need, on the CPU; a statistic that several share is moved once."""
    shared = {id(inputs[linear.name][need]): inputs[linear.name][need] for linear in linears for need in needs}
    moved = {key: value.cpu() for key, value in shared.items()}
    return {linear.name: {need: moved[id(inputs[linear.name][need])] for need in needs} for linear in linears}


def _weight(linear: Linear) -> Tensor:
    return full(linear.module.weight.detach())


def _scores(setup: Setup, linear: Linear, waiting: Mapping[str, Tensor]) -> Tensor:
    """Returns the scores of a linear's weights, given the statistics of its inputs that wait on the CPU."""
    weight = _weight(linear)
    inputs = {need: value.to(weight.device) for need, value in waiting.items()}
    return setup.recipe.score(weight, setup.given(linear, {linear.name: inputs}))


class _ByLayer(Mapping[str, Tensor]):
    """Tensors by layer, made when looked up: those of a whole model would be another model."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Tensor]) -> None:
        self._names, self._make = tuple(names), make

    def __getitem__(self, name: str) -> Tensor:
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
