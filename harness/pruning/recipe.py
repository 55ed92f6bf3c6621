"""A recipe: criterion or solver, pattern and refiner, joined into one function for a layer.

Anything goes with anything: the methods' positional arguments say what they are to be given, the walk collects the
input statistics among it, and the pattern's `group=paper` becomes the comparison group of the method's paper (its
constant `GROUP`; a refiner's goes before, for it says what its paper starts from). A method's `as_released` is the
pattern's too, so that one word gives the mask of the released code: the count of `unstructured`, the ties of `nm`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.models import Linear
from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.gradients import GRADIENTS
from harness.pruning.solvers import Solved, zero
from harness.pruning.statistics import STATISTICS, finite
from harness.rooms import ROOMS, Choice, bind, load, resolve

_OF_LAYER = ("layer", "part", *GRADIENTS)
_GIVEN = {
    "criterion": ("weight", *_OF_LAYER),
    "solver": ("weight", "choose", "sparsity", "period"),
    "refiner": ("weight", "keep", "scores", "period", *_OF_LAYER),
}
"""What each kind is given besides input statistics, by the name of the argument."""

Given = Mapping[str, Any]
"""What is known of a layer: its input statistics and whatever else its methods ask for, by name."""


@dataclass(frozen=True)
class Recipe:
    """How a layer is pruned.

    Attributes:
        needs: The input statistics it asks for.
        scoring: Those among them that `score` asks for; none for a solver.
        gradients: The gradients, before any layer is pruned, that it asks for, names of `GRADIENTS`.
        choose: The pattern, (scores, sparsity) -> keep.
        fit: (rates by layer, layers, overall sparsity) -> the nearest rates that the pattern can express.
        score: (weight, given) -> scores; None for a solver.
        solve: (weight, given, sparsity) -> Solved.
        exact: Whether every mask has the pattern and the sparsity; the released DSnoT breaks them in narrow layers.
    """

    needs: tuple[str, ...]
    scoring: tuple[str, ...]
    gradients: tuple[str, ...]
    choose: Callable[[Tensor, float], Tensor]
    fit: Callable[[Mapping[str, float], Mapping[str, Layer], float], dict[str, float]]
    score: Callable[[Tensor, Given], Tensor] | None
    solve: Callable[[Tensor, Given, float], Solved]
    exact: bool


def recipe(kind: str, method: str | Choice, pattern: str | Choice, refiner: str | Choice | None = None) -> Recipe:
    """Joins a criterion or a solver with a pattern and, for a criterion, a refiner.

    Args:
        kind: "criterion" or "solver".
        method: The choice of that kind.
        pattern: The choice of a pattern.
        refiner: The choice of a refiner, or None.

    Raises:
        Problem: A name or option is unknown, or a method needs what does not exist.
    """
    method, pattern = resolve(kind, method), resolve("pattern", pattern)
    refiner = resolve("refiner", refiner) if refiner else None
    asked = {kind: _needs(kind, method), "refiner": _needs("refiner", refiner) if refiner else ()}
    refines_as_released = bool(refiner and refiner.options.get("as_released"))
    released = refines_as_released or bool(method.options.get("as_released"))
    choose, fit, period = _pattern(pattern, _group(kind, method, refiner), released)
    verb = bind(kind, method)
    refine = bind("refiner", refiner) if refiner else None

    def score(weight: Tensor, given: Given) -> Tensor:
        scores = verb(weight, **{name: given[name] for name in asked[kind] if name != "weight"})
        if not finite(scores):
            raise Problem(f"{method.name} gives scores that are not finite")
        return scores

    def by_criterion(weight: Tensor, given: Given, sparsity: float) -> Solved:
        scores = score(weight, given)
        keep = choose(scores, sparsity)
        if refine:
            known = {**given, "weight": weight, "keep": keep, "scores": scores, "period": period}
            keep = refine(**{name: known[name] for name in asked["refiner"]})
        return Solved(zero(weight.clone(), keep), keep, slab=weight.shape[1])

    def by_solver(weight: Tensor, given: Given, sparsity: float) -> Solved:
        known = {**given, "weight": weight, "choose": choose, "sparsity": sparsity, "period": period}
        return verb(**{name: known[name] for name in asked[kind]})

    every = {name for names in asked.values() for name in names}
    return Recipe(
        needs=tuple(name for name in STATISTICS if name in every),
        scoring=tuple(name for name in STATISTICS if kind == "criterion" and name in asked[kind]),
        gradients=tuple(name for name in GRADIENTS if name in every),
        choose=choose,
        fit=fit,
        score=score if kind == "criterion" else None,
        solve=by_criterion if kind == "criterion" else by_solver,
        exact=not refines_as_released,
    )


def _needs(kind: str, choice: Choice) -> tuple[str, ...]:
    """Returns the names of a method's positional arguments, each of them something that can be given."""
    source = ROOMS[kind].method(choice.name)
    if strange := [need for need in source.needs if need not in _GIVEN[kind] and need not in STATISTICS]:
        raise Problem(
            f"{kind} {source.name!r} needs {strange[0]!r}, which nothing provides",
            where=f"{source.path}:{source.line}",
            hint="there is: " + ", ".join((*STATISTICS, *_GIVEN[kind])),
        )
    return source.needs


def _group(kind: str, method: Choice, refiner: Choice | None) -> str:
    """Returns the comparison group of the paper."""
    if refiner:
        return ROOMS["refiner"].method(refiner.name).constants["GROUP"]
    return ROOMS[kind].method(method.name).constants["GROUP"]


def _pattern(pattern: Choice, group: str, released: bool) -> tuple[Callable, Callable, int | None]:
    """Returns a pattern's `choose` and `fit`, and how many columns it must see at once (None: any number)."""
    options, module = dict(pattern.options), load("pattern", pattern.name)
    if options.get("group") == "paper":
        options["group"] = group
    if released and "as_released" in options:
        options["as_released"] = True
    verb = "choose_as_released" if released and hasattr(module, "choose_as_released") else "choose"
    bound, constants = Choice(pattern.name, options), ROOMS["pattern"].method(pattern.name).constants
    period = options[constants["PERIOD"]] if "PERIOD" in constants else None
    fit = bind("pattern", bound, "fit") if hasattr(module, "fit") else _as_asked
    return bind("pattern", bound, verb), fit, period


def _as_asked(rates: Mapping[str, float], layers: Mapping[str, Layer], sparsity: float) -> dict[str, float]:
    """Returns the rates as they are: the fit of a pattern that has none."""
    return dict(rates)


def clock(device: torch.device) -> float:
    """Returns the time in seconds at which a device has done all that it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def prune(linear: Linear, given: Given, sparsity: float, recipe: Recipe) -> tuple[Tensor, dict]:
    """Prunes one layer in place and checks that its mask has the pattern and exactly the sparsity asked for.

    `unstructured:as_released` counts by the scores in a group of a whole matrix or slab, and prunes all that tie with
    the last; of n weights the check is then that more than int(n * sparsity) are pruned, not how many more. A mask of
    the released DSnoT need not have the pattern: where it has not, the row says so (`fits_pattern` is false).

    Args:
        linear: The layer.
        given: What is known of it: all that the recipe's methods ask for.
        sparsity: Fraction of zeros asked for.
        recipe: How.

    Returns:
        The mask [out, in], and a row for `prune.json`: asked, reached, zeros, size, seconds and the method's facts.

    Raises:
        Problem: Something is wrong with this layer, which is named.
    """
    weight = linear.module.weight
    begin = clock(weight.device)
    try:
        solved = recipe.solve(weight.detach(), given, sparsity)
        _check(solved, weight)
        fits = _fits(solved, sparsity, recipe)
        if recipe.exact and not fits:
            raise Problem(f"its mask does not have the pattern or the sparsity of {sparsity:g} that was asked for")
    except Problem as problem:
        raise problem.at(linear.name) from problem
    weight.copy_(solved.weight)
    size = solved.keep.numel()
    zeros = size - int(solved.keep.count_nonzero())
    row = {"asked": sparsity, "reached": zeros / size, "zeros": zeros, "size": size}
    facts = {**solved.facts, **({} if fits else {"fits_pattern": False})}
    return solved.keep, {**row, "seconds": round(clock(weight.device) - begin, 4), **facts}


def _check(solved: Solved, weight: Tensor) -> None:
    """Checks the weights of a pruned layer."""
    if not finite(solved.weight):
        raise Problem("its pruned weights are not finite")
    if solved.weight.shape != weight.shape or solved.weight.dtype != weight.dtype:
        raise Problem(f"its pruned weights are {solved.weight.dtype} {tuple(solved.weight.shape)}")
    if (solved.weight.bool() & ~solved.keep).any():
        raise Problem("its pruned weights are not all zero")


def _fits(solved: Solved, sparsity: float, recipe: Recipe) -> bool:
    """Says whether a mask fits its pattern: choosing by the mask itself gives the mask back."""
    slabs = solved.keep.split(solved.slab, dim=1)
    return all(torch.equal(recipe.choose(slab, sparsity), slab) for slab in slabs)
