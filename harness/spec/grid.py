"""From an entry to its cells: every combination of the axes with every seed, and the baselines they are compared with.

A cell is called by the labels of its points, `0.6/squarehead`; a baseline by the labels that matter to it and its kind,
`0.6/one_shot`, `dense`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.problems import Problem
from harness.spec.axes import Axis, axes_of
from harness.spec.cases import matched_cases
from harness.spec.settings import Labels, Settings

if TYPE_CHECKING:
    from harness.spec.entry import Entry

_DENSE = {"model", "data", "task", "prepare", "evaluate"}


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell of a table.

    Attributes:
        entry: The entry's name.
        scale: The scale.
        label: Its axes' labels joined with "/"; a baseline's own after the labels that matter to it.
        axes: Axis name to label, only the axes that matter to it.
        values: Axis name to value, for the same axes.
        baseline: Which baseline it is, if it is one.
        seed: The seed of this repetition; None where it is done once.
        settings: `model`, the sections `prepare`, `prune`, `tune` (each None where left out) and `evaluate` (by name),
            resolved: choices as text with every option. Shared between cells: not to be changed.
        previous: In a chain, the cell whose tuned weights this one is pruned from.
    """

    entry: str
    scale: str
    label: str
    axes: Mapping[str, str]
    values: Mapping[str, Any]
    baseline: Literal["dense", "one_shot"] | None
    seed: int | None
    settings: dict[str, Any]
    previous: Cell | None = None


def cells(entry: Entry) -> list[Cell]:
    """Returns an entry's cells: baselines first, then the grid in its order with the seeds innermost.

    Raises:
        Problem: The first of what is wrong; `expand` returns all.
    """
    found, problems = expand(entry)
    if problems:
        raise problems[0]
    return found


def expand(entry: Entry) -> tuple[list[Cell], list[Problem]]:
    """Returns an entry's cells and everything that is wrong with it; cells are complete only if nothing is."""
    axes, problems = axes_of(entry)
    cases, wrong = matched_cases(entry, axes)
    settings = Settings(entry, axes, cases)
    problems = [*problems, *wrong, *_wrong_chain(entry, axes)]
    found: list[Cell] = []
    if not problems:
        built = list(_combinations(entry, axes, settings))
        problems = list({(p.where, p.what): p for p in settings.problems}.values())
        if not problems:
            found = [*_baselines(entry, built, settings), *_grid(entry, built, axes)]
    return found, problems


@dataclass(frozen=True)
class _Built:
    """One combination of points with its settings."""

    labels: Labels
    settings: dict[str, Any]


def _combinations(entry: Entry, axes: list[Axis], settings: Settings) -> Iterator[_Built]:
    for labels in itertools.product(*(axis.points for axis in axes)):
        built = settings.of(labels)
        settings.problems += _wrong_together(entry, built)
        yield _Built(labels, built)


def _wrong_together(entry: Entry, settings: dict[str, Any]) -> Iterator[Problem]:
    if settings["tune"] is not None and settings["prune"] is None:
        hint = "add prune, or call the dense fine-tuning prepare"
        yield Problem("tune fine-tunes a pruned model, and there is no prune", where=entry.where("tune"), hint=hint)
    if settings["tune"] is None and entry.chain:
        what = "a chain starts each cell from tuned weights, and there is no tune"
        yield Problem(what, where=entry.where("chain"), hint="add tune, or set chain: null")
    if str(settings["model"]).startswith("tiny/") and settings["prepare"] is None:
        hint = "add prepare: {steps: 100, lr: 1e-3}"
        yield Problem(f"{settings['model']} has random weights and no prepare", where=entry.where("model"), hint=hint)
    section = "prune" if settings["tune"] is None else "tune"
    if entry.seeds is not None and entry.has(f"{section}.seed"):
        yield Problem(f"both seeds and {section}.seed", where=entry.where(f"{section}.seed"), hint="keep one of them")


def _wrong_chain(entry: Entry, axes: list[Axis]) -> Iterator[Problem]:
    if entry.chain is None:
        return
    axis = next((axis for axis in axes if axis.name == entry.chain), None)
    where = entry.where("chain")
    if axis is None:
        names = [axis.name for axis in axes]
        hint = f"axes: {', '.join(names) or 'none'}; a scale without that axis sets chain: null"
        yield Problem(f"chain: the grid has no axis {entry.chain!r}", where=where, nearest=names[:3], hint=hint)
    elif not axis.numeric:
        hint = "a chain goes along numbers, as those of prune.sparsity"
        yield Problem(f"chain: the axis {entry.chain!r} has values that are no numbers", where=where, hint=hint)


def _grid(entry: Entry, built: list[_Built], axes: list[Axis]) -> Iterator[Cell]:
    chain = next((i for i, axis in enumerate(axes) if axis.name == entry.chain), None)
    before = {} if chain is None else {new: old for old, new in itertools.pairwise(axes[chain].points)}
    made: dict[tuple, Cell] = {}
    for one in built:
        stage = next((name for name in ("tune", "prune") if one.settings[name] is not None), None)
        if stage is None and not axes:  # nothing but the dense model, which is a baseline
            continue
        seeds = (None,) if stage is None else entry.seeds or (one.settings[stage]["seed"],)
        label = "/".join(one.labels) or {"tune": "tuned", "prune": "pruned"}[stage]
        for seed in seeds:
            settings = one.settings if seed is None else one.settings | {stage: one.settings[stage] | {"seed": seed}}
            earlier = None
            if chain is not None and one.labels[chain] in before:
                earlier = made[(*one.labels[:chain], before[one.labels[chain]], *one.labels[chain + 1 :], seed)]
            named = _named(axes, one.labels, range(len(axes)))
            cell = made[(*one.labels, seed)] = Cell(
                entry.name, entry.scale, label, *named, None, seed, settings, earlier
            )
            yield cell


def _named(axes: list[Axis], labels: Labels, which: Iterable[int]) -> tuple[dict[str, str], dict[str, Any]]:
    named = {axes[i].name: labels[i] for i in which}
    return named, {axes[i].name: axes[i].points[labels[i]].value for i in which}


def _baselines(entry: Entry, built: list[_Built], settings: Settings) -> Iterator[Cell]:
    kinds = {"dense": (_DENSE, {"prune": None, "tune": None}), "one_shot": (_DENSE | {"prune"}, {"tune": None})}
    grid_is_dense = not settings.axes and all(one.settings["prune"] is None for one in built)
    for kind, (reads, without) in kinds.items():
        if kind not in entry.baselines and not (kind == "dense" and grid_is_dense):
            continue
        which = settings.axes_touching(reads)
        seen: set[Labels] = set()
        for one in built:
            labels = tuple(one.labels[i] for i in which)
            if labels in seen or (kind == "one_shot" and one.settings["tune"] is None):
                continue
            seen.add(labels)
            named = _named(settings.axes, one.labels, which)
            label = "/".join((*labels, kind))
            yield Cell(entry.name, entry.scale, label, *named, kind, None, one.settings | without)
