"""A recipe: criterion and pattern, or solver and pattern, joined into one function for a layer.

Anything goes with anything: the criterion's or solver's positional arguments say which statistics the walk collects,
and the pattern's `group=paper` becomes the comparison group of its paper (its constant `GROUP`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.models import Linear
from harness.problems import Problem
from harness.pruning.solvers import Solved
from harness.pruning.statistics import STATISTICS
from harness.rooms import ROOMS, Choice, bind, resolve

_GIVEN = {"criterion": ("weight",), "solver": ("weight", "choose", "sparsity", "period")}


@dataclass(frozen=True)
class Recipe:
    """How a layer is pruned.

    Attributes:
        needs: The input statistics it asks for.
        choose: The pattern, (scores, sparsity) -> keep.
        solve: (weight, inputs, sparsity) -> Solved.
    """

    needs: tuple[str, ...]
    choose: Callable[[Tensor, float], Tensor]
    solve: Callable[[Tensor, Mapping[str, Tensor], float], Solved]


def recipe(kind: str, method: str | Choice, pattern: str | Choice) -> Recipe:
    """Joins a criterion or a solver with a pattern.

    Args:
        kind: "criterion" or "solver".
        method: The choice of that kind.
        pattern: The choice of a pattern.

    Raises:
        Problem: A name or option is unknown, or the method needs a statistic that does not exist.
    """
    method, pattern = resolve(kind, method), resolve("pattern", pattern)
    source, shape = ROOMS[kind].method(method.name), ROOMS["pattern"].method(pattern.name)
    needs = tuple(need for need in source.needs if need not in _GIVEN[kind])
    if strange := [need for need in needs if need not in STATISTICS]:
        raise Problem(
            f"{kind} {method.name!r} needs {strange[0]!r}, which is no input statistic",
            where=f"{source.path}:{source.line}",
            hint="there is: " + ", ".join(STATISTICS),
        )
    options = dict(pattern.options)
    if options.get("group") == "paper":
        options["group"] = source.constants["GROUP"]
    choose = bind("pattern", Choice(pattern.name, options))
    period = options[shape.constants["PERIOD"]] if "PERIOD" in shape.constants else None
    verb = bind(kind, method)

    def by_solver(weight: Tensor, inputs: Mapping[str, Tensor], sparsity: float) -> Solved:
        return verb(weight, choose=choose, sparsity=sparsity, period=period, **inputs)

    def by_criterion(weight: Tensor, inputs: Mapping[str, Tensor], sparsity: float) -> Solved:
        scores = verb(weight, **inputs)
        if not scores.isfinite().all():
            raise Problem(f"{method.name} gives scores that are not finite")
        keep = choose(scores, sparsity)
        return Solved(weight.masked_fill(~keep, 0), keep, slab=weight.shape[1])

    return Recipe(needs, choose, by_solver if kind == "solver" else by_criterion)


@torch.no_grad()
def prune(linear: Linear, inputs: Mapping[str, Tensor], sparsity: float, recipe: Recipe) -> tuple[Tensor, dict]:
    """Prunes one layer in place and checks that exactly the sparsity asked for was reached.

    Args:
        linear: The layer.
        inputs: The statistics that the recipe needs.
        sparsity: Fraction of zeros asked for.
        recipe: How.

    Returns:
        The mask [out, in], and a row for `prune.json`: asked, reached, zeros, size, seconds and the method's facts.

    Raises:
        Problem: Something is wrong with this layer, which is named.
    """
    begin, weight = time.perf_counter(), linear.module.weight
    try:
        solved = recipe.solve(weight.detach(), inputs, sparsity)
        _check(solved, weight, sparsity, recipe)
    except Problem as problem:
        raise Problem(problem.what, where=linear.name, nearest=problem.nearest, hint=problem.hint) from problem
    weight.copy_(solved.weight)
    zeros, size = int((~solved.keep).sum()), solved.keep.numel()
    row = {"asked": sparsity, "reached": zeros / size, "zeros": zeros, "size": size}
    return solved.keep, {**row, "seconds": round(time.perf_counter() - begin, 4), **solved.facts}


def _check(solved: Solved, weight: Tensor, sparsity: float, recipe: Recipe) -> None:
    """Checks a pruned layer; a mask fits its pattern exactly when choosing by the mask itself gives the mask back."""
    if not solved.weight.isfinite().all():
        raise Problem("its pruned weights are not finite")
    if solved.weight.shape != weight.shape or solved.weight.dtype != weight.dtype:
        raise Problem(f"its pruned weights are {solved.weight.dtype} {tuple(solved.weight.shape)}")
    if solved.weight.masked_fill(solved.keep, 0).count_nonzero():
        raise Problem("its pruned weights are not all zero")
    for slab in solved.keep.split(solved.slab, dim=1):
        if not torch.equal(recipe.choose(slab.float(), sparsity), slab):
            raise Problem(f"its mask does not have the pattern or the sparsity of {sparsity:g} that was asked for")
