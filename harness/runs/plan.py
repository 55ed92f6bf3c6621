"""From cells to stages: what has to be computed for a set of cells, each stage once however many cells share it.

    dense     prepare -> evaluate
    one_shot  prepare -> prune -> evaluate
    cell      prepare -> prune -> pretrain -> tune -> quantize -> evaluate; in a chain prune starts from the cell before

Where an entry prepares nothing, and to prune where `start` is base, the source of its model stands for the prepared
one. Only options that decide a stage's result enter its key, so that what is equal is computed once: a magnitude prune
is the same for every calibration seed.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.problems import Problem
from harness.runs.decides import prunes, split
from harness.runs.keys import Stage
from harness.runs.origins import Origins
from harness.runs.slugs import slug
from harness.runs.store import COMPUTED, FINISHED, State, Store
from harness.sources import Source

if TYPE_CHECKING:
    from harness.spec.entry import Entry
    from harness.spec.grid import Cell

Model = Stage | Source
TRAINS = ("pretrain", "tune")
"""The stages that train pruned weights, in their order."""
EVALUATE = "evaluate/"
"""What the role of an evaluation begins with; its name in the entry follows."""
MEASURE = "measure"
"""The role of the measuring, which has scores as an evaluation has."""


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """A cell and its own stages by role: prepare, prune, pretrain, tune, quantize, evaluate/<name>."""

    cell: Cell
    stages: Mapping[str, Stage]

    @functools.cached_property
    def needs(self) -> tuple[Stage, ...]:
        """All stages that must be done for it, parents first: its own, and in a chain those of the cells before."""
        found: dict[Stage, None] = {}
        for stage in self.stages.values():
            _ancestry(stage, found)
        return tuple(found)


@dataclass(frozen=True)
class Plan:
    """What a set of cells needs.

    Attributes:
        cells: The cells that can be planned.
        states: How each stage stands, in an order in which parents come first and cells are completed one by one.
        missing: What cannot be had on this machine, or used as asked; the cells that need it are not planned.
        unplanned: How many cells that are.
    """

    cells: tuple[PlannedCell, ...]
    states: Mapping[Stage, State]
    missing: tuple[Problem, ...] = ()
    unplanned: int = 0

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, each once, parents first."""
        return tuple(self.states)

    def needing(self, stage: Stage) -> tuple[PlannedCell, ...]:
        """Returns the cells that cannot be done without a stage."""
        return tuple(self._needing.get(stage, ()))

    @functools.cached_property
    def _needing(self) -> dict[Stage, list[PlannedCell]]:
        return _grouped((stage, item) for item in self.cells for stage in item.needs)

    def readers(self, stage: Stage) -> tuple[Stage, ...]:
        """Returns the stages that read a stage's result."""
        return tuple(self._readers.get(stage, ()))

    @functools.cached_property
    def _readers(self) -> dict[Stage, list[Stage]]:
        return _grouped((parent, stage) for stage in self.states for parent in dict.fromkeys(stage.parents.values()))

    @property
    def lacking(self) -> tuple[Stage, ...]:
        """The stages that are not finished."""
        return tuple(stage for stage, state in self.states.items() if state not in FINISHED)

    @property
    def counts(self) -> Counter[State]:
        """How many stages are cached, missing, failed, ..."""
        return Counter(self.states.values())

    @property
    def shared(self) -> int:
        """How many computations sharing saves: those of every cell on its own, less those of the plan."""
        return sum(len(item.needs) for item in self.cells) - len(self.states)

    def summary(self) -> str:
        """Returns the plan in a line."""
        states = ", ".join(f"{count} {state}" for state, count in self.counts.most_common())
        text = f"{_count(len(self.cells), 'cell')}, {_count(len(self.states), 'stage')}"
        text += f" ({states})" if states else ""
        text += f"; sharing saves {self.shared}" if self.shared else ""
        return text + (f"; {_count(self.unplanned, 'cell')} cannot run here" if self.unplanned else "")


def plan(cells: Iterable[Cell], store: Store) -> Plan:
    """Plans cells; imports no method and computes nothing.

    Args:
        cells: From `harness.spec.grid.cells`, of one entry or several; a cell's `previous` need not be among them.
        store: Where results lie.
    """
    planner = _Planner()
    planned = [(cell, planner.stages(cell)) for cell in cells]
    possible = [PlannedCell(cell, stages) for cell, stages in planned if stages is not None]
    missing = tuple(planner.origins.missing.values())
    return arrange(possible, store, missing, len(planned) - len(possible))


def arrange(cells: Sequence[PlannedCell], store: Store, missing: Sequence[Problem] = (), unplanned: int = 0) -> Plan:
    """Puts the stages of planned cells in order, each once, and looks up how they stand.

    One whose weights were freed is missing where a stage that reads it is to be computed.
    """
    stages = dict.fromkeys(stage for item in cells for stage in item.needs)
    states = {stage: store.state(stage) for stage in stages}
    states |= {stage: "missing" for stage in read(states) if states[stage] == "freed"}
    return Plan(tuple(cells), states, tuple(missing), unplanned)


def read(states: Mapping[Stage, State], computed: Collection[State] = COMPUTED) -> set[Stage]:
    """Returns the stages whose weights are read by what is to be computed, the freed ones among them too.

    Args:
        states: How stages stand, parents first.
        computed: The states of what is computed.
    """
    found: set[Stage] = set()
    for stage in reversed(states):
        if states[stage] in computed or (states[stage] == "freed" and stage in found):
            found |= set(stage.parents.values())
    return found


def missing_sources(entry: Entry) -> list[Problem]:
    """Returns what an entry needs and cannot have or use on this machine: models and data sets, each once."""
    from harness.spec.grid import cells

    planner = _Planner()
    for cell in cells(entry):
        planner.stages(cell)
    return list(planner.origins.missing.values())


class _Planner:
    """Builds stages. Cells share their sections, so one section with the same parents is built once."""

    def __init__(self) -> None:
        self.origins = Origins()
        self._built: dict[tuple, tuple[Mapping[str, Any], Stage | None]] = {}
        self._training = functools.cache(self._trained)  # a chain asks again for every cell before

    def stages(self, cell: Cell) -> dict[str, Stage] | None:
        """Returns a cell's stages by role, or None when a source cannot be used; all are looked up even then."""
        found = dict(self._training(cell))
        last = _last(found) or self._dense(cell.settings)
        if section := cell.settings["quantize"]:
            found["quantize"] = last = self._stage("quantize", section, {"model": last})
        for name, section in cell.settings["evaluate"].items():
            found[EVALUATE + name] = self._stage("evaluate", section, {"model": last})
        if section := cell.settings["measure"]:
            found[MEASURE] = self._stage(MEASURE, section, {"model": last})
        return None if None in found.values() or not self.origins.fits(cell.settings) else found

    def _trained(self, cell: Cell) -> dict[str, Stage | None]:
        """Returns prepare, prune, pretrain and tune, those that the cell has."""
        settings, found = cell.settings, {}
        dense = self._dense(settings)
        if settings["prepare"]:
            found["prepare"] = dense
        if settings["prune"]:
            base = settings["prune"]["start"] == "base"
            start = _last(self._training(cell.previous)) if cell.previous else self._base(settings) if base else dense
            if not any(settings[name] and settings[name]["ramp"] for name in TRAINS):
                found["prune"] = self._stage("prune", settings["prune"], {"model": start})
        for name in TRAINS:
            if section := settings[name]:
                reads = {"model": start if section["ramp"] else _last(found)}
                reads |= {"teacher": dense} if section["teacher"] else {}
                found[name] = self._stage(name, section, reads, prune=settings["prune"] if prunes(section) else None)
        return found

    def _base(self, settings: Mapping[str, Any]) -> Source | None:
        """Returns the model as it came."""
        return self.origins.model(settings["model"])

    def _dense(self, settings: Mapping[str, Any]) -> Model | None:
        """Returns the dense model: the prepared one, or the source where nothing is prepared."""
        name = settings["model"]
        if name.startswith("tiny/"):
            return self._stage("prepare", settings["prepare"], {}, {"model": name})
        source = self._base(settings)
        return self._stage("prepare", settings["prepare"], {"model": source}) if settings["prepare"] else source

    def _stage(
        self,
        name: str,
        section: Mapping[str, Any],
        reads: Mapping[str, Model | None],
        more: Mapping[str, Any] = MappingProxyType({}),
        prune: Mapping[str, Any] | None = None,
    ) -> Stage | None:
        """Returns the stage of a section that reads these models, by role; None when any source is missing.

        A section of training that prunes is handed the cell's `prune` section too.
        """
        known = (name, id(section), id(prune), *more.items(), *reads.items())
        if known not in self._built:
            handed = {**more, **section, **({"prune": prune} if prune else {})}
            self._built[known] = ((section, prune), self._build(name, handed, reads))
        return self._built[known][1]

    def _build(self, name: str, options: Mapping[str, Any], reads: Mapping[str, Model | None]) -> Stage | None:
        decides, handling = split(name, options)
        data = self.origins.data(decides) if "split" in decides else {}  # a search alone reads no split but its own
        search = self.origins.search(decides) if "search_split" in decides else {}
        pruning = self._pruning(decides["prune"]) if "prune" in decides else {}
        if data is None or search is None or pruning is None or None in reads.values():
            return None
        return Stage(
            name,
            decides,
            parents={role: one for role, one in reads.items() if isinstance(one, Stage)},
            sources={
                **{role: one for role, one in reads.items() if not isinstance(one, Stage)},
                **data,
                **search,
                **pruning,
                **(self.origins.packages(decides) if name == "evaluate" else {}),
                **(self.origins.machine(decides) if name == MEASURE else {}),
            },
            handling=handling,
            slug=slug(name, decides, reads.get("model")),
        )

    def _pruning(self, section: Mapping[str, Any]) -> dict[str, Source] | None:
        """Returns what a training that prunes reads for it, by role; None if it cannot be had."""
        data = self.origins.data(section) if "split" in section else {}
        search = self.origins.search(section) if "search_split" in section else {}
        if data is None or search is None:
            return None
        return {f"prune/{role}": one for role, one in (data | search).items()}


def _last(found: Mapping[str, Stage | None]) -> Stage | None:
    """Returns the last stage that changed the pruned weights; None without one, or where it cannot be planned."""
    return next((found[role] for role in ("tune", "pretrain", "prune") if role in found), None)


def _grouped(pairs: Iterable[tuple[Stage, Any]]) -> dict[Stage, list[Any]]:
    """Returns what belongs to each stage, in order."""
    found: dict[Stage, list[Any]] = {}
    for stage, one in pairs:
        found.setdefault(stage, []).append(one)
    return found


def _ancestry(stage: Stage, found: dict[Stage, None]) -> None:
    """Adds a stage to `found` after all that it comes from."""
    waiting = [stage]  # no recursion: a chain is as long as its axis
    while waiting:
        parent = next((one for one in waiting[-1].parents.values() if one not in found), None)
        if parent is None:
            found[waiting.pop()] = None
        else:
            waiting.append(parent)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
