"""Following a run in MLflow: what each event of `harness.runs.execute` writes, and when.

A stage that several cells share is followed live in the run of the first of them; the others get its curve from their
record when they are done. Nothing is imported, and no store made, before the first stage really runs: a second run of
what is done costs nothing. Whatever goes wrong with MLflow is said once and loses no result: the records are the truth,
and `harness sync` makes up for it. Only speeds and the machine's load are seen live and not kept in records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.runs.events import CellDone, CellFailed, Event, StageDone, StageFailed, StageProgress, StageStarted
from harness.tracking import address, curves, facets, mlflow, record

if TYPE_CHECKING:
    from harness.runs.job import Progress
    from harness.runs.keys import Stage
    from harness.runs.plan import Plan, PlannedCell
    from harness.spec.entry import Entry
    from harness.spec.grid import Cell

EVERY = 2.0
"""Seconds between two deliveries of a live curve."""


@dataclass
class _Run:
    """An open run: its id, when it began (ms), and by role the first step that was logged live."""

    id: str
    begin: int
    live: dict[str, int] = field(default_factory=dict)


class Tracker:
    """Mirrors the events of one execution in MLflow; use it as a context manager."""

    def __init__(
        self,
        plan: Plan,
        entries: Mapping[str, Entry],
        results: Path,
        uri: str | None = None,
        warn: Callable[[str], None] = print,
    ):
        """Prepares to listen; touches no store.

        Args:
            plan: What is executed.
            entries: Its experiments by name.
            results: The results folder.
            uri: The tracking store; by default `address.store_uri(results)`.
            warn: Told, once, that MLflow does not work.
        """
        self._items = {item.cell: item for item in plan.cells}
        self._first = _first(plan)
        self._entries, self._results, self._warn = entries, results, warn
        self._uri = uri or address.store_uri(results)
        self._started = self._broken = False
        self._runs: dict[Cell, _Run] = {}
        self._untouched: list[CellDone] = []
        self._errors: dict[Stage, str] = {}
        self._buffer: list[tuple[str, float, int, int]] = []
        self._delivered = 0.0
        self._watched: tuple[_Run, Any] | None = None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self._safely(self._close)

    def listen(self, event: Event) -> None:
        """Writes what an event says."""
        self._safely(lambda: self._follow(event))

    def report(self, entry: str, scale: str, files: Sequence[Path], note: str) -> None:
        """Keeps an entry's tables and plots, if anything was computed; `note` is Markdown."""
        if self._started:
            mine = [item for item in self._items.values() if (item.cell.entry, item.cell.scale) == (entry, scale)]
            cells = [facets.cell_key(self._said(item)) for item in mine]
            self._safely(lambda: self._mirror.report(entry, scale, files, note, cells))

    def _safely(self, write: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            write()
        except Exception as error:
            self._broken = True
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            self._warn(f"MLflow is not written any more ({why}); no result is lost: `harness sync` makes up for it")

    @cached_property
    def _mirror(self) -> mlflow.Mirror:
        return mlflow.Mirror(self._uri, self._results)

    def _follow(self, event: Event) -> None:
        match event:
            case StageStarted(stage=stage):
                self._started = True
                item, _ = self._first[stage]
                self._watch(self._open(item))
            case StageProgress(stage=stage, progress=progress):
                self._note(stage, progress)
            case StageDone(cached=False):
                self._deliver()
            case StageFailed(stage=stage, message=message, log=log, earlier=False):
                self._deliver()
                self._errors[stage] = log.read_text(encoding="utf8") if log else message
            case CellDone(cell=cell) if self._started:
                self._finish(cell, event.folders)
            case CellDone():
                self._untouched.append(event)
            case CellFailed(cell=cell, stage=stage) if self._started and stage in self._errors:
                self._end(self._open(self._items[cell]), "FAILED", self._errors[stage])
                del self._runs[cell]

    def _open(self, item: PlannedCell) -> _Run:
        """Returns the run of a cell, started if need be."""
        if item.cell not in self._runs:
            begin = _now()
            self._runs[item.cell] = _Run(self._mirror.open(self._said(item), begin), begin)
        return self._runs[item.cell]

    def _said(self, item: PlannedCell) -> dict[str, Any]:
        """Returns as much of a cell's record as there is before it has run."""
        stages = {
            role: {"key": stage.key, "options": stage.options, "handling": stage.handling}
            for role, stage in item.stages.items()
        }
        return {**record.asked(self._entries[item.cell.entry], item.cell), "stages": stages}

    def _note(self, stage: Stage, progress: Progress) -> None:
        """Keeps the points of a curve that the record will keep, and delivers them from time to time."""
        item, role = self._first[stage]
        run = self._open(item)
        if progress.unit == "step" and progress.done - 1 in curves.evenly(progress.total):
            run.live.setdefault(role, progress.done)
            values = ((f"{role}/{name}", curves.digits(value)) for name, value in progress.values.items())
            self._buffer += [(name, value, progress.done, _now()) for name, value in values]
        if time.monotonic() - self._delivered > EVERY:
            self._deliver()

    def _deliver(self) -> None:
        if self._buffer and self._watched:
            self._mirror.points(self._watched[0].id, self._buffer)
        self._buffer, self._delivered = [], time.monotonic()

    def _finish(self, cell: Cell, folders: Mapping[str, Path]) -> None:
        """Completes the run of a cell; one that the store has whole, and that nothing was computed for, stays."""
        said = record.build(self._entries[cell.entry], cell, folders, self._results)
        if cell not in self._runs:
            self._mirror.complete(said)
            return
        run = self._runs.pop(cell)
        self._unwatch(run)
        self._mirror.finish(run.id, said, run.begin, run.live)

    def _end(self, run: _Run, status: str, error: str | None = None) -> None:
        self._unwatch(run)
        self._mirror.end(run.id, status, error=error)

    def _watch(self, run: _Run) -> None:
        """Logs the machine's load to the run whose stage is computed."""
        if self._watched is None or self._watched[0] is not run:
            if self._watched:
                self._unwatch(self._watched[0])
            self._watched = (run, self._mirror.watch(run.id))

    def _unwatch(self, run: _Run) -> None:
        if self._watched and self._watched[0] is run:
            self._watched[1].finish()
            self._watched = None

    def _close(self) -> None:
        """Ends what is open, and makes sure of the cells that were there before anything was computed."""
        self._deliver()
        for run in self._runs.values():
            self._end(run, "KILLED")
        for event in self._untouched if self._started else ():
            self._finish(event.cell, event.folders)


def _first(plan: Plan) -> dict[Stage, tuple[PlannedCell, str]]:
    """Returns for each stage the cell that it is followed in, and its role there.

    A stage that no cell of the plan owns (a chain's beginning, when only its end is asked for) goes by its own name.
    """
    owned = [(stage, item, role) for item in plan.cells for role, stage in item.stages.items()]
    needed = [(stage, item, f"before/{stage}") for item in plan.cells for stage in item.needs]
    return {stage: (item, role) for stage, item, role in reversed([*owned, *needed])}


def _now() -> int:
    return time.time_ns() // 1_000_000
