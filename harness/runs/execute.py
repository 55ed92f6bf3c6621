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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.problems import Problem
from harness.runs import code, disk, freeing, processes
from harness.runs.events import (
    CellDone,
    CellFailed,
    Event,
    StageDone,
    StageFailed,
    StageProgress,
    StageStarted,
    StageWaiting,
    WeightsFreed,
)
from harness.runs.job import Job, Progress, StageModule
from harness.runs.keys import Stage
from harness.runs.plan import Plan, PlannedCell, read
from harness.runs.processes import ALONE, Processes
from harness.runs.store import FINISHED, State, Store
from harness.runs.work import Work

if TYPE_CHECKING:
    from harness.sources import Source
    from harness.spec.grid import Cell

POLL = 2.0
"""Seconds between two looks at stages that other processes compute."""


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
    lean: bool = False,
    load_stage: Callable[[str], StageModule] = load_stage,
    poll: float = POLL,
    team: Processes = ALONE,
) -> Iterator[Event]:
    """Computes what a plan lacks.

    Args:
        plan: The cells and their stages.
        store: Where results lie.
        retry: Compute failed and damaged stages again; otherwise their error is reported again.
        fail_fast: Stop after the first failure.
        lean: Free the weights of a stage as soon as all of the plan that read them are done.
        load_stage: Gives a stage's module by its name; called only when something must be computed.
        poll: Seconds between two looks at what other processes compute.
        team: In how many processes training stages are computed.

    Yields:
        What happens, as it happens.
    """
    run = _Run(plan, store, retry, load_stage, team)
    waiting = list(plan.stages)
    with store.running() as mark:
        while waiting:
            later = []
            for stage in waiting:
                outcome = yield from run.settle(stage)
                if outcome is None:
                    later.append(stage)
                    continue
                yield from run.cells(stage, outcome)
                if lean:
                    yield from run.free(stage.parents.values(), store.busy(mark))
                if fail_fast and isinstance(outcome, StageFailed):
                    return
            if later == waiting:
                time.sleep(poll)
            waiting = later
        if lean:  # what another run may have been reading
            yield from run.free(plan.stages, store.busy(mark), told=True)


class _Run:
    """One execution: what has come of each stage so far, and what has been told."""

    def __init__(
        self, plan: Plan, store: Store, retry: bool, load_stage: Callable[[str], StageModule], team: Processes
    ):
        self.plan, self.store, self.retry, self.load_stage, self.team = plan, store, retry, load_stage, team
        self.outcomes: dict[Stage, Outcome] = {}
        self.told: set[PlannedCell] = set()
        self.announced: set[Stage] = set()
        for stage in plan.stages if retry else ():
            with contextlib.suppress(OSError):  # `settle` tells
                self._cleared(stage)
        self.read = read({stage: store.state(stage) for stage in plan.stages})

    def settle(self, stage: Stage) -> Generator[Event, None, Outcome | None]:
        """Returns what has come of a stage, computing it if need be; None while that is up to others."""
        parents = [self.outcomes.get(parent) for parent in stage.parents.values()]
        if failed := next((each for each in parents if isinstance(each, StageFailed)), None):
            return failed
        if None in parents:
            return None
        try:
            state = self._cleared(stage) if self.retry else self.store.state(stage)
        except OSError as error:
            outcome = self._failed(stage, f"the store cannot be written: {error}")
            yield outcome
            return outcome
        again = state == "freed" and stage in self.read
        if state == "failed" or (again and self.store.error(stage)):
            outcome = self._failed(stage, self.store.error(stage), self.store.log(stage), earlier=True)
        elif state in ("cached", "freed", "damaged") and not again:
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

    def free(self, stages: Iterable[Stage], busy: str | None, told: bool = False) -> Iterator[WeightsFreed]:
        """Frees the weights of stages that all of the plan that read them are done with.

        Args:
            stages: Some of the plan; one that nothing reads stays.
            busy: Who else is computing here, and may be reading them: then they stay.
            told: Whether that is told.
        """
        for stage in dict.fromkeys(stages):
            readers = self.plan.readers(stage)
            if not readers or not all(isinstance(self.outcomes.get(reader), Path) for reader in readers):
                continue
            try:
                size = 0 if busy else freeing.free(self.store.folder(stage))
                trouble = f"{busy} may be reading them; `harness clean` frees them later" if busy and told else None
            except (Problem, OSError) as error:
                size, trouble = 0, str(error)
            if size or trouble:
                yield WeightsFreed(stage, size, trouble)

    def _cleared(self, stage: Stage) -> State:
        """Removes what stands in the way of computing a failed or damaged stage again; looks at every byte for that."""
        state = self.store.state(stage)
        if state in FINISHED and self._found(stage, every_byte=state == "cached") != self.store.folder(stage):
            self.store.discard(stage)
        elif state in ("failed", "freed", "damaged"):
            self.store.clear(stage)
        return self.store.state(stage)

    def _found(self, stage: Stage, every_byte: bool = False) -> Outcome:
        """Returns a finished stage's folder, with all that a record reads verified here and now."""
        try:
            return self.store.open(stage, every_byte)
        except (Problem, OSError) as error:
            return self._failed(stage, str(error))

    def _compute(self, stage: Stage) -> Generator[Event, None, Outcome | None]:
        try:
            if self.store.holder(stage):  # it reads its parents, which may be gone when it is done
                work = None
            else:
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
        outcome = yield from self._work(stage, work, {**stage.models, **parents})
        yield outcome if isinstance(outcome, StageFailed) else StageDone(stage, outcome, self._seconds(stage), False)
        return outcome

    def _work(self, stage: Stage, work: Work, parents: Mapping[str, Path | Source]) -> Generator[Event, None, Outcome]:
        begin = time.perf_counter()
        job = Job({**stage.handling, **stage.options}, parents, work.folder, work.scratch)
        try:
            yield StageStarted(stage, self._cells(stage))
            sources = code.files(stage)
            with contextlib.closing(self._steps(stage, job)) as steps:
                for progress in steps:
                    yield StageProgress(stage, progress)
            return work.finish(time.perf_counter() - begin, sources)
        except Exception as error:
            if disk.full(error, self.store.root):
                problem = self._disk_full(stage, work.size())
                work.release()
                return self._failed(stage, str(problem))
            known = isinstance(error, Problem)
            message = str(error) if known else f"{type(error).__name__}: {error}"
            log = None
            with contextlib.suppress(OSError):  # where even the error cannot be kept, it is still told
                log = work.fail(message if known else f"{message}\n\n{traceback.format_exc()}")
            return self._failed(stage, message, log)
        except BaseException:  # Ctrl-C, or nobody listens any more: interrupted, to go on later
            work.release()
            raise

    def _steps(self, stage: Stage, job: Job) -> Iterator[Progress]:
        """Returns the steps of a stage, computed here or by several processes."""
        if self.team.compute(stage.name):
            return processes.run(f"harness.stages.{stage.name}", job, self.team)
        return self.load_stage(stage.name).run(job)

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
