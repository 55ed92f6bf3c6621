"""Carrying out a plan: stages in order, in this process, told as events.

A stage that is done is not touched. One that fails takes along only what needs it; one that another process computes is
waited for at the end. State lives in the store, so that the same command goes on wherever a kill left it.

Close the iterator when leaving it early (`contextlib.closing`), so that the stage in progress is given back at once.
"""

from __future__ import annotations

import contextlib
import importlib
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.problems import Problem
from harness.runs import disk
from harness.runs.job import Job, Progress, StageModule
from harness.runs.keys import Stage
from harness.runs.plan import Plan, PlannedCell
from harness.runs.store import State, Store, Work

if TYPE_CHECKING:
    from harness.sources import Source
    from harness.spec.grid import Cell

POLL = 2.0
"""Seconds between two looks at stages that other processes compute."""


@dataclass(frozen=True)
class StageStarted:
    """A stage begins, or goes on from its checkpoint; `cells` need it."""

    stage: Stage
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class StageProgress:
    """A stage reports."""

    stage: Stage
    progress: Progress


@dataclass(frozen=True)
class StageDone:
    """A stage's result lies in `folder`; it took `seconds` to compute, now or (`cached`) earlier."""

    stage: Stage
    folder: Path
    seconds: float
    cached: bool


@dataclass(frozen=True)
class StageFailed:
    """A stage failed, now or `earlier`, and with it `cells`. `log` holds the traceback of an unexpected error."""

    stage: Stage
    message: str
    cells: tuple[Cell, ...]
    log: Path | None = None
    earlier: bool = False


@dataclass(frozen=True)
class StageWaiting:
    """A stage is computed by somebody else (`holder`); it is looked at again when nothing else is left to do."""

    stage: Stage
    holder: str


@dataclass(frozen=True)
class CellDone:
    """All stages of a cell are done; `folders` by role: prepare, prune, tune, evaluate/<name>."""

    cell: Cell
    folders: Mapping[str, Path]


@dataclass(frozen=True)
class CellFailed:
    """A cell cannot be completed, because of `stage`."""

    cell: Cell
    stage: Stage
    message: str


Event = StageStarted | StageProgress | StageDone | StageFailed | StageWaiting | CellDone | CellFailed
Outcome = Path | StageFailed


def load_stage(name: str) -> StageModule:
    """Imports a stage's module; this is what brings in torch."""
    return importlib.import_module(f"harness.stages.{name}")


def execute(
    plan: Plan,
    store: Store,
    *,
    retry: bool = False,
    fail_fast: bool = False,
    load_stage: Callable[[str], StageModule] = load_stage,
    poll: float = POLL,
) -> Iterator[Event]:
    """Computes what a plan lacks.

    Args:
        plan: The cells and their stages.
        store: Where results lie.
        retry: Compute failed and damaged stages again; otherwise their error is reported again.
        fail_fast: Stop after the first failure.
        load_stage: Gives a stage's module by its name; called only when something must be computed.
        poll: Seconds between two looks at what other processes compute.

    Yields:
        What happens, as it happens.
    """
    run = _Run(plan, store, retry, load_stage)
    waiting = list(plan.stages)
    while waiting:
        later = []
        for stage in waiting:
            outcome = yield from run.settle(stage)
            if outcome is None:
                later.append(stage)
                continue
            yield from run.cells(stage, outcome)
            if fail_fast and isinstance(outcome, StageFailed):
                return
        if later == waiting:
            time.sleep(poll)
        waiting = later


class _Run:
    """One execution: what has come of each stage so far, and what has been told."""

    def __init__(self, plan: Plan, store: Store, retry: bool, load_stage: Callable[[str], StageModule]):
        self.plan, self.store, self.retry, self.load_stage = plan, store, retry, load_stage
        self.outcomes: dict[Stage, Outcome] = {}
        self.told: set[PlannedCell] = set()
        self.announced: set[Stage] = set()

    def settle(self, stage: Stage) -> Generator[Event, None, Outcome | None]:
        """Returns what has come of a stage, computing it if need be; None while that is up to others."""
        parents = [self.outcomes.get(parent) for parent in stage.parents.values()]
        if failed := next((each for each in parents if isinstance(each, StageFailed)), None):
            return failed
        if None in parents:
            return None
        state = self.store.state(stage)
        if self.retry:
            state = self._cleared(stage, state)
        if state == "failed":
            outcome = self._failed(stage, self.store.error(stage), self.store.log(stage), earlier=True)
        elif state in ("cached", "damaged"):
            outcome = self._found(stage)
        else:
            return (yield from self._compute(stage))
        yield outcome if isinstance(outcome, StageFailed) else StageDone(stage, outcome, self._seconds(stage), True)
        return outcome

    def cells(self, stage: Stage, outcome: Outcome) -> Iterator[Event]:
        """Notes what came of a stage, and reports the cells that this completes or ends, each once."""
        self.outcomes[stage] = outcome
        for item in self.plan.needing(stage):
            if item in self.told:
                continue
            folders = {role: self.outcomes.get(each) for role, each in item.stages.items()}
            if isinstance(outcome, StageFailed):
                yield CellFailed(item.cell, outcome.stage, outcome.message)
            elif None not in folders.values():
                yield CellDone(item.cell, folders)
            else:
                continue
            self.told.add(item)

    def _cleared(self, stage: Stage, state: State) -> State:
        """Removes what stands in the way of computing a failed or damaged stage again; looks at every byte for that."""
        if state == "cached":
            try:
                self.store.open(stage)
            except Problem:
                self.store.discard(stage)
                return "missing"
        if state in ("failed", "damaged"):
            self.store.clear(stage)
            return "missing"
        return state

    def _found(self, stage: Stage) -> Outcome:
        """Returns a finished stage's folder; evaluations, which records are read from, are verified here and now."""
        if stage.name != "evaluate" and self.store.state(stage) == "cached":
            return self.store.folder(stage)
        try:
            return self.store.open(stage)
        except Problem as problem:
            return self._failed(stage, str(problem))

    def _compute(self, stage: Stage) -> Generator[Event, None, Outcome | None]:
        try:
            parents = {role: self.store.open(parent) for role, parent in stage.parents.items()}
            work = self.store.begin(stage)
        except (Problem, OSError) as error:  # nothing of this stage was begun, so no error of its own is kept
            full = disk.full(error, self.store.root)
            outcome = self._failed(stage, str(self._disk_full(stage, 0) if full else error))
            yield outcome
            return outcome
        if work is None:
            if (holder := self.store.holder(stage)) and stage not in self.announced:
                self.announced.add(stage)
                yield StageWaiting(stage, holder)
            return None
        yield StageStarted(stage, self._cells(stage))
        outcome = yield from self._work(stage, work, {**stage.models, **parents})
        yield outcome if isinstance(outcome, StageFailed) else StageDone(stage, outcome, self._seconds(stage), False)
        return outcome

    def _work(self, stage: Stage, work: Work, parents: Mapping[str, Path | Source]) -> Generator[Event, None, Outcome]:
        begin = time.perf_counter()
        job = Job({**stage.handling, **stage.options}, parents, work.folder, work.scratch)
        try:
            with contextlib.closing(self.load_stage(stage.name).run(job)) as steps:
                for progress in steps:
                    yield StageProgress(stage, progress)
            return work.finish(time.perf_counter() - begin)
        except Exception as error:
            if disk.full(error, self.store.root):
                problem = self._disk_full(stage, work.size())
                work.release()
                return self._failed(stage, str(problem))
            known = isinstance(error, Problem)
            message = str(error) if known else f"{type(error).__name__}: {error}"
            log = work.fail(message if known else f"{message}\n\n{traceback.format_exc()}")
            return self._failed(stage, message, log)
        except BaseException:  # Ctrl-C, or nobody listens any more: interrupted, to go on later
            work.release()
            raise

    def _failed(self, stage: Stage, message: str, log: Path | None = None, earlier: bool = False) -> StageFailed:
        return StageFailed(stage, message, self._cells(stage), log, earlier)

    def _cells(self, stage: Stage) -> tuple[Cell, ...]:
        return tuple(item.cell for item in self.plan.needing(stage))

    def _seconds(self, stage: Stage) -> float:
        return self.store.done(stage)["seconds"]

    def _disk_full(self, stage: Stage, written: int) -> Problem:
        parent = stage.parents.get("model")
        needs = sum(file["size"] for file in self.store.done(parent)["files"].values()) if parent else 0
        return disk.problem(self.store.root, written, needs)
