"""From an entry to its cells: every combination of the axes with every seed, and the baselines they are compared with.

A cell is called by the labels of its points, `0.6/squarehead`; a baseline by the labels that matter to it and its kind,
`0.6/one_shot`, `dense`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from harness import rooms
from harness.problems import Problem
from harness.spec.axes import Axis
from harness.spec.cases import matched_cases
from harness.spec.fits import wrong_ramp, wrong_revival
from harness.spec.settings import Labels, Settings

if TYPE_CHECKING:
    from harness.spec.entry import Entry

TRAINS = ("tune", "pretrain")
"""The sections that train pruned weights, the last stage first."""
DONE = {"quantize": "quantized", "tune": "tuned", "pretrain": "pretrained", "prune": "pruned"}
"""What a cell of an entry without a grid is called, by its last stage."""
_DENSE = {"model", "data", "task", "prepare", "evaluate", "measure"}


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
        settings: `model`, the sections `prepare`, `prune`, `pretrain`, `tune`, `quantize` (None where left out each)
            and `evaluate` (by name), resolved: choices as text with every option. Shared between cells: not to be
            changed.
        previous: In a chain, the cell whose trained weights this one is pruned from. Its `tune` is left out where both
            pretrain: sparse pretraining goes on from sparse pretraining.
    """

    entry: str
    scale: str
    label: str
    axes: Mapping[str, str]
    values: Mapping[str, Any]
    baseline: Literal["dense", "one_shot", "pretrained"] | None
    seed: int | None
    settings: dict[str, Any]
    previous: Cell | None = None


def cells(entry: Entry) -> list[Cell]:
    """Returns an entry's cells, always the same: baselines first, then the grid in its order, the seeds innermost.

    Raises:
        Problem: The first of what is wrong; `expand` returns all.
    """
    found, problems = entry.expanded
    if problems:
        raise problems[0]
    return found


def expand(entry: Entry) -> tuple[list[Cell], list[Problem]]:
    """Returns an entry's cells and everything that is wrong with it; cells are complete only if nothing is."""
    axes, problems = entry.axes
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
    for name, does in (("tune", "fine-tunes"), ("pretrain", "trains")):
        if settings[name] is not None and settings["prune"] is None:
            hint = "add prune, or call the dense fine-tuning prepare"
            yield Problem(f"{name} {does} a pruned model, and there is no prune", where=entry.where(name), hint=hint)
        elif (settings[name] or {}).get("ramp"):
            yield from _wrong_ramp(entry, name, settings)
        elif settings[name] and (wrong := _wrong_revival(settings[name], settings["prune"])):
            yield Problem(wrong.what, where=entry.where(f"{name}.method"), hint=wrong.hint)
        yield from _wrong_adapter(entry, name, settings)
    section = _last(settings, *TRAINS, "prune") or "prune"
    if entry.chain and section == "prune":
        what = "a chain starts each cell from trained weights, and there is no tune"
        yield Problem(what, where=entry.where("chain"), hint="add tune or pretrain, or set chain: null")
    if str(settings["model"]).startswith("tiny/"):
        yield from _wrong_tiny_start(entry, settings)
    if entry.seeds is not None and entry.has(f"{section}.seed"):
        yield Problem(f"both seeds and {section}.seed", where=entry.where(f"{section}.seed"), hint="keep one of them")


def _wrong_revival(section: dict[str, Any], prune: dict[str, Any]) -> Problem | None:
    """Returns why a method's zeros cannot keep the pattern; None of sections that are told to be wrong already."""
    given = section.get("method"), prune.get("pattern")
    return wrong_revival(*given) if all(given) else None


def _wrong_ramp(entry: Entry, name: str, settings: dict[str, Any]) -> Iterator[Problem]:
    """Yields why the model cannot be pruned over a ramp while it trains."""
    where = entry.where(f"{name}.ramp")
    if settings["prune"] and (wrong := wrong_ramp(settings[name], settings["prune"])):  # else it is told to be wrong
        yield Problem(wrong.what, where=where, hint=wrong.hint)
    if entry.chain:
        what = "a ramp begins with every weight, so the zeros of the cell before would be trained again"
        yield Problem(what, where=where, hint="set chain: null, or ramp: null")
    if name == "tune" and settings["pretrain"] is not None:
        what = "tune would prune the dense model anew, and what pretrain made is lost"
        yield Problem(what, where=where, hint="set the ramp of pretrain, or pretrain: null")


def _wrong_adapter(entry: Entry, name: str, settings: dict[str, Any]) -> Iterator[Problem]:
    """Yields what would read a model with an adapter beside it, which can only be evaluated."""
    method = rooms.parse((settings[name] or {}).get("method", "masked")).name
    if rooms.ROOMS["method"].method(method).constants.get("MERGES") is not False:
        return
    after = _last(settings, *(("tune",) if name == "pretrain" else ()), "quantize", "measure")
    chained = entry.chain and (name == "pretrain" or settings["pretrain"] is None)
    if reader := after or (chained and "chain"):
        what = f"what {method} trains stays beside the sparse model, and {reader} cannot read it"
        hint = "a method whose result merges: lors, sparse_peft, masked"
        yield Problem(what, where=entry.where(f"{name}.method"), hint=hint)


def _wrong_tiny_start(entry: Entry, settings: dict[str, Any]) -> Iterator[Problem]:
    if settings["prepare"] is None:
        hint = "add prepare: {steps: 100, lr: 1e-3}"
        yield Problem(f"{settings['model']} has random weights and no prepare", where=entry.where("model"), hint=hint)
    elif (settings["prune"] or {}).get("start") == "base":
        what = f"{settings['model']} has random weights before prepare: there is nothing to prune"
        yield Problem(what, where=entry.where("prune.start"), hint="set prune.start: dense at this scale")


def _last(settings: dict[str, Any], *names: str) -> str | None:
    """Returns the first of these sections that a cell has."""
    return next((name for name in names if settings[name] is not None), None)


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
    before = _before(entry.chain, axes)
    made: dict[tuple, Cell] = {}
    for one in built:
        stage = _last(one.settings, *TRAINS, "prune")
        if stage is None and not axes and one.settings["quantize"] is None:  # only the dense model, a baseline
            continue
        seeds = (None,) if stage is None else entry.seeds or (one.settings[stage]["seed"],)
        label = "/".join(one.labels) or DONE[_last(one.settings, *DONE)]
        for seed in seeds:
            settings = one.settings if seed is None else one.settings | {stage: one.settings[stage] | {"seed": seed}}
            earlier = None
            if one.labels in before:
                earlier = _trained_alike(made[(*before[one.labels], seed)], settings)
            named = _named(axes, one.labels, range(len(axes)))
            cell = made[(*one.labels, seed)] = Cell(
                entry.name, entry.scale, label, *named, None, seed, settings, earlier
            )
            yield cell


def _trained_alike(earlier: Cell, settings: dict[str, Any]) -> Cell:
    """Returns the cell that a chain goes on from, without its `tune` where both it and the next one pretrain."""
    both = earlier.settings["pretrain"] is not None and settings["pretrain"] is not None
    return replace(earlier, settings=earlier.settings | {"tune": None}) if both else earlier


def _named(axes: list[Axis], labels: Labels, which: Iterable[int]) -> tuple[dict[str, str], dict[str, Any]]:
    named = {axes[i].name: labels[i] for i in which}
    return named, {axes[i].name: axes[i].points[labels[i]].value for i in which}


def _baselines(entry: Entry, built: list[_Built], settings: Settings) -> Iterator[Cell]:
    untrained = dict.fromkeys((*TRAINS, "quantize"))
    kinds = {
        "dense": (_DENSE, untrained | {"prune": None}),
        "one_shot": (_DENSE | {"prune"}, untrained),
        "pretrained": (_DENSE | {"prune", "pretrain"}, {"tune": None, "quantize": None}),
    }
    grid_is_dense = not settings.axes and all(_last(one.settings, "prune", "quantize") is None for one in built)
    for kind, (reads, without) in kinds.items():
        if kind not in entry.baselines and not (kind == "dense" and grid_is_dense):
            continue
        which = settings.axes_touching(reads)
        before = _before(entry.chain, [settings.axes[i] for i in which]) if kind == "pretrained" else {}
        seen: dict[Labels, Cell] = {}
        for one in built:
            labels = tuple(one.labels[i] for i in which)
            if labels in seen or not _stands_for(kind, one.settings):
                continue
            earlier = seen.get(before.get(labels))
            if labels in before and earlier is None:  # what it goes on from was tuned
                continue
            named = _named(settings.axes, one.labels, which)
            label = "/".join((*labels, kind))
            cell = Cell(entry.name, entry.scale, label, *named, kind, None, one.settings | without, earlier)
            yield seen.setdefault(labels, cell)


def _before(chain: str | None, axes: list[Axis]) -> dict[Labels, Labels]:
    """Returns, for each combination of labels, the one before it along the axis of the chain, if there is one."""
    at = next((i for i, axis in enumerate(axes) if axis.name == chain), None)
    if at is None:
        return {}
    older = {new: old for old, new in itertools.pairwise(axes[at].points)}
    labels = itertools.product(*(axis.points for axis in axes))
    return {one: (*one[:at], older[one[at]], *one[at + 1 :]) for one in labels if one[at] in older}


def _stands_for(kind: str, settings: dict[str, Any]) -> bool:
    """Says whether a combination has what a baseline of this kind leaves out, and what it keeps."""
    if kind == "dense":
        return True
    kept = ("pretrain", "tune") if kind == "pretrained" else ("prune",)
    return all(settings[name] is not None for name in kept) and _last(settings, *TRAINS, "quantize") is not None
