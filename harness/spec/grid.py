"""From an entry to its cells: every combination of the axes with every seed, and the baselines they are compared with.

A cell's settings are the top level and the scale, then its axes' points, then the cases that match it, then `--set`. Sections are
checked once for each distinct combination of the axes that touch them, so that a thousand cells cost little.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from harness import rooms
from harness.problems import Problem
from harness.spec.axes import Axis, axes_of
from harness.spec.cases import Matched, matched_cases
from harness.spec.choices import check_model
from harness.spec.faults import problems_of
from harness.spec.sections import SECTIONS, SETTINGS, lay

if TYPE_CHECKING:
    from harness.spec.entry import Entry

Labels = tuple[str, ...]
_READS = {section: {section, "data", "task"} for section in SECTIONS}
_DENSE = {"model", "data", "task", "prepare", "evaluate"}


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell of a table.

    Attributes:
        entry: The entry's name.
        scale: The scale.
        label: Its axes' labels joined with "/"; "dense" and "one_shot" (after the labels that matter to them) for baselines.
        axes: Axis name to label, only the axes that matter to it.
        values: Axis name to value, for the same axes.
        baseline: Which baseline it is, if it is one.
        seed: The seed of this repetition; None where it is done once.
        settings: The resolved settings: `model`, and the sections `prepare`, `prune`, `tune` (each None when left out) and
            `evaluate` (by name), choices as text with every option. Shared between cells: not to be changed.
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
    sections = _Sections(entry, axes, cases)
    problems = [*problems, *wrong, *_wrong_chain(entry, axes)]
    found: list[Cell] = []
    if not problems:
        built = list(_combinations(entry, axes, sections))
        problems = list({(p.where, p.what): p for p in sections.problems}.values())
        if not problems:
            found = [*_baselines(entry, built, sections), *_grid(entry, built)]
    return found, problems


@dataclass(frozen=True)
class _Built:
    """One combination of points with its settings."""

    labels: Labels
    settings: dict[str, Any]


class _Sections:
    """Resolves sections under a combination of labels, each distinct one once, and collects what is wrong."""

    def __init__(self, entry: Entry, axes: list[Axis], cases: list[Matched]) -> None:
        self.entry, self.axes, self.cases = entry, axes, cases
        self.problems: list[Problem] = []
        self.context = {"resolve": functools.cache(rooms.resolve), "resolve_terms": functools.cache(rooms.resolve_terms)}
        self.relevant = {name: self.axes_touching(reads) for name, reads in (_READS | {"top": set(SETTINGS)}).items()}
        self.cache: dict[tuple, Any] = {}

    def axes_touching(self, sections: set[str]) -> list[int]:
        """Returns which axes (by position) change anything in these sections, through their points or through cases."""
        touch = {axis.name for axis in self.axes if any(_head(name) in sections for name in axis.settings)}
        for case in self.cases:
            if any(_head(name) in sections for name in case.settings):
                touch |= case.when.keys()
        return [i for i, axis in enumerate(self.axes) if axis.name in touch]

    def once(self, name: str, labels: Labels, make: Callable[[str, Labels], Any]) -> Any:
        """Returns `make(name, labels)`, made once for all combinations that agree where it matters."""
        key = (name, *(labels[i] for i in self.relevant[name]))
        if key not in self.cache:
            self.cache[key] = make(name, labels)
        return self.cache[key]

    def layers(self, labels: Labels) -> list[Mapping[str, tuple[Any, str]]]:
        """Returns the settings that axes and cases make, in the order in which they are laid."""
        points = [axis.points[label].settings for axis, label in zip(self.axes, labels, strict=True)]
        here = dict(zip((axis.name for axis in self.axes), labels, strict=True))
        return [*points, *(c.settings for c in self.cases if all(here[a] in good for a, good in c.when.items()))]

    def top(self, _: str, labels: Labels) -> dict[str, Any]:
        """Returns model, data and task."""
        values = {name: getattr(self.entry, name) for name in SETTINGS}
        for layer in self.layers(labels):
            values |= {name: layer[name][0] for name in SETTINGS if name in layer}
        try:
            check_model(values["model"])
        except PydanticCustomError as error:
            problem = (error.context or {})["problem"]
            where = self.where("model", labels)
            self.problems.append(Problem(f"model: {problem.what}", where=where, nearest=problem.nearest, hint=problem.hint))
        return values

    def section(self, name: str, labels: Labels) -> dict[str, Any] | None:
        """Returns prepare, prune or tune, resolved, or None where it is left out."""
        raw = getattr(self.entry, name)
        for layer in self.layers(labels):
            if name in layer:
                raw = layer[name][0]
            changes = {key.partition(".")[2]: value for key, (value, _) in layer.items() if key.startswith(f"{name}.")}
            raw = lay(raw or {}, changes) if changes else raw
        return None if raw is None else self.resolved(name, name, raw, labels)

    def evaluate(self, _: str, labels: Labels) -> dict[str, dict[str, Any]]:
        """Returns the evaluations by name, resolved."""
        raw = {name: dict(self.entry.evaluate.get(name) or {}) for name in self.entry.evaluations}
        for layer in self.layers(labels):
            for key, (value, _path) in layer.items():
                if _head(key) == "evaluate":
                    _, name, field = key.split(".", 2)
                    raw[name][field] = value
        return {name: self.resolved("evaluate", f"evaluate.{name}", one, labels) for name, one in raw.items()}

    def resolved(self, section: str, dotted: str, raw: dict[str, Any], labels: Labels) -> dict[str, Any]:
        """Fills in the entry's data and task, checks, and writes every default out."""
        top = self.once("top", labels, self.top)
        raw = {"task": top["task"]} | raw
        if "data" not in raw and not (section == "evaluate" and _reads_nothing(raw["task"])):
            raw["data"] = top["data"]
        try:
            return SECTIONS[section].model_validate(raw, context=self.context).model_dump(mode="json")
        except ValidationError as error:
            where = functools.partial(self.where, labels=labels)
            self.problems += problems_of(error, raw, SECTIONS[section], where, dotted)
            return {}

    def where(self, dotted: str, labels: Labels) -> str:
        """Returns the place that a setting's value under these labels comes from."""
        field = dotted.rpartition(".")[2]
        for layer in reversed(self.layers(labels)):
            if dotted in layer:
                return self.entry.where(layer[dotted][1])
        if "." in dotted and field in SETTINGS and not self.entry.has(dotted):
            return self.where(field, labels)
        return self.entry.where(dotted)


def _head(setting: str) -> str:
    return setting.partition(".")[0]


def _reads_nothing(task: Any) -> bool:
    room = rooms.ROOMS["task"]
    name = str(task).partition(":")[0].strip()
    return name in room.names() and room.method(name).constants.get("READS", name) is None


def _combinations(entry: Entry, axes: list[Axis], sections: _Sections) -> Iterator[_Built]:
    for labels in itertools.product(*(axis.points for axis in axes)):
        settings = {"model": sections.once("top", labels, sections.top)["model"]}
        settings |= {name: sections.once(name, labels, sections.section) for name in ("prepare", "prune", "tune")}
        settings["evaluate"] = sections.once("evaluate", labels, sections.evaluate)
        sections.problems += _wrong_together(entry, settings)
        yield _Built(labels, settings)


def _wrong_together(entry: Entry, settings: dict[str, Any]) -> Iterator[Problem]:
    if settings["tune"] is not None and settings["prune"] is None:
        hint = "add prune, or call the dense fine-tuning prepare"
        yield Problem("tune is the fine-tuning of a pruned model, and there is no prune", where=entry.where("tune"), hint=hint)
    if settings["tune"] is None and entry.chain:
        yield Problem("a chain starts each cell from tuned weights, and there is no tune", where=entry.where("chain"))
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
        yield Problem(f"chain: the axis {entry.chain!r} has values that are no numbers", where=where)


def _grid(entry: Entry, built: list[_Built]) -> Iterator[Cell]:
    axes, _ = axes_of(entry)
    chain = next((i for i, axis in enumerate(axes) if axis.name == entry.chain), None)
    before = {} if chain is None else dict(itertools.pairwise(axes[chain].points))
    made: dict[tuple, Cell] = {}
    for one in built:
        stage = next((name for name in ("tune", "prune") if one.settings[name] is not None), None)
        if stage is None and not axes:
            continue
        seeds = (None,) if stage is None else entry.seeds or (one.settings[stage]["seed"],)
        named = _named(axes, one.labels, range(len(axes)))
        label = "/".join(one.labels) or {"tune": "tuned", "prune": "pruned"}[stage]
        for seed in seeds:
            last = None
            if chain is not None and stage and one.labels[chain] in before.values():
                earlier = next(old for old, new in before.items() if new == one.labels[chain])
                last = made[(*one.labels[:chain], earlier, *one.labels[chain + 1 :], seed)]
            settings = one.settings if seed is None else one.settings | {stage: one.settings[stage] | {"seed": seed}}
            cell = Cell(entry.name, entry.scale, label, *named, None, seed, settings, last)
            made[(*one.labels, seed)] = cell
            yield cell


def _named(axes: list[Axis], labels: Labels, which) -> tuple[dict[str, str], dict[str, Any]]:
    named = {axes[i].name: labels[i] for i in which}
    return named, {axes[i].name: axes[i].points[labels[i]].value for i in which}


def _baselines(entry: Entry, built: list[_Built], sections: _Sections) -> Iterator[Cell]:
    kinds = {"dense": (_DENSE, {"prune": None, "tune": None}), "one_shot": (_DENSE | {"prune"}, {"tune": None})}
    grid_is_dense = not sections.axes and all(one.settings["prune"] is None for one in built)
    for kind, (reads, without) in kinds.items():
        if kind not in entry.baselines and not (kind == "dense" and grid_is_dense):
            continue
        which = sections.axes_touching(reads)
        seen: set[Labels] = set()
        for one in built:
            labels = tuple(one.labels[i] for i in which)
            if labels in seen or (kind == "one_shot" and one.settings["tune"] is None):
                continue
            seen.add(labels)
            named = _named(sections.axes, one.labels, which)
            label = "/".join((*labels, kind))
            yield Cell(entry.name, entry.scale, label, *named, kind, None, one.settings | without)
