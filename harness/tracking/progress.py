"""Progress on the terminal: all stages and the one in hand, with time left; a line a stage where there is no terminal.

Time left is that of the stage in hand plus, for every stage to come, the mean of those of its kind so far; while a kind
has not been seen yet, it is said to be a lower bound.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from harness import output
from harness.runs.events import Event, StageDone, StageFailed, StageProgress, StageStarted, StageWaiting, WeightsFreed

if TYPE_CHECKING:
    from harness.runs.keys import Stage
    from harness.runs.plan import Plan
    from harness.spec.grid import Cell

OUTCOMES = ("computed", "found", "failed", "left out")
"""What becomes of a stage; one that comes from a failed one is left out."""
SHOWN = ("loss", "sparsity")
"""The values of a stage that are shown while it runs, the first that it reports."""


class Bars:
    """Shows the events of one execution; use it as a context manager."""

    def __init__(self, plan: Plan, console: Console | None = None):
        """Prepares to listen.

        Args:
            plan: What is executed.
            console: Where to print; by default the terminal, or standard output.
        """
        self._console = console or output.console()
        self._plan = plan
        self._todo = set(plan.lacking)
        self._took: dict[str, list[float]] = {}
        self._failures: list[StageFailed] = []
        self._counts: Counter[str] = Counter()
        self._freed = 0
        self._begin = self._stage_begin = time.monotonic()
        title, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
        columns = (title, BarColumn(), MofNCompleteColumn(), note)
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._all = self._bars.add_task("all stages", total=len(plan.states), note="")
        self._one = self._bars.add_task("", total=None, note="", visible=False)

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
        self._summary()

    def listen(self, event: Event) -> None:
        """Shows what an event says."""
        match event:
            case StageStarted(stage=stage, cells=cells):
                self._stage_begin = time.monotonic()
                self._todo.discard(stage)
                self._bars.remove_task(self._one)
                self._one = self._bars.add_task(escape(_title(stage, cells)), total=None, note="")
            case StageProgress(progress=progress):
                value = next((f"{name} {progress.values[name]:.4g}" for name in SHOWN if name in progress.values), "")
                left = self._in_hand(progress.done, progress.total)
                note = f"{value}  {clock(left)} left".strip()
                self._bars.update(self._one, completed=progress.done, total=progress.total, note=note)
                self._bars.update(self._all, note=self._time_left(left))
            case StageDone(stage=stage, cached=cached, seconds=seconds):
                self._settle({stage}, "found" if cached else "computed")
                if not cached:
                    self._took.setdefault(stage.name, []).append(seconds)
                    self._line(f"{stage}  {clock(seconds)}")
            case StageFailed(stage=stage, message=message):
                self._settle(_doomed(self._plan, stage), "failed")
                self._failures.append(event)
                self._line(f"{stage}  [bold red]failed[/]: {escape(message.splitlines()[0])}")
            case StageWaiting(stage=stage, holder=holder):
                self._line(f"{stage}  waits for {escape(holder)}")
            case WeightsFreed(stage=stage, trouble=str(trouble)):
                self._line(f"{stage}  its weights stay: {escape(trouble.splitlines()[0])}")
            case WeightsFreed(size=size):
                self._freed += size

    def _settle(self, stages: set[Stage], how: str) -> None:
        """Counts a stage as settled; one that fails takes along those that come from it."""
        self._todo -= stages
        self._counts[how] += 1
        self._counts["left out"] += len(stages) - 1
        self._bars.update(self._one, visible=False)
        self._bars.update(self._all, advance=len(stages), note=self._time_left(0.0))

    def _line(self, text: str) -> None:
        done = self._bars.tasks[self._all]
        total = f"{done.total:.0f}"
        self._console.print(f"[dim]{done.completed:>{len(total)}.0f}/{total}[/] {text}", soft_wrap=True)

    def _in_hand(self, done: int, total: int) -> float:
        """Returns the seconds left of the stage in hand at its speed so far."""
        return (time.monotonic() - self._stage_begin) * (total - done) / max(done, 1)

    def _time_left(self, in_hand: float) -> str:
        """Returns the time left of all stages; "at least" while a kind of stage has not been timed."""
        if not self._todo and not in_hand:
            return ""
        known = {name: statistics.fmean(seconds) for name, seconds in self._took.items()}
        seconds = in_hand + sum(known.get(stage.name, 0.0) for stage in self._todo)
        unseen = any(stage.name not in known for stage in self._todo)
        return f"{'at least ' if unseen else ''}{clock(seconds)} left"

    def _summary(self) -> None:
        """Prints what was done, and every failure with the place of its log."""
        counts = ", ".join(f"{self._counts[how]} {how}" for how in OUTCOMES if self._counts[how])
        total = len(self._plan.states)
        freed = f"; {self._freed / 2**30:.1f} GiB of weights freed" if self._freed else ""
        took = clock(time.monotonic() - self._begin)
        self._console.print(f"{total} stages: {counts or 'nothing done'}; {took}{freed}")
        for failure in self._failures:
            cells = ", ".join(dict.fromkeys(cell.label for cell in failure.cells))
            self._console.print(f"[bold red]failed[/] {failure.stage}: {escape(failure.message)}", soft_wrap=True)
            self._console.print(f"  cells without a result: {escape(cells)}", soft_wrap=True)
            again = "; it failed in an earlier run, --retry computes it again" if failure.earlier else ""
            if failure.log:
                self._console.print(f"  log: {failure.log}{again}", soft_wrap=True)


def _doomed(plan: Plan, failed: Stage) -> set[Stage]:
    """Returns a failed stage and all that come from it."""
    found = {failed}
    for stage in plan.stages:
        if found & set(stage.parents.values()):
            found.add(stage)
    return found


def clock(seconds: float) -> str:
    """Returns a duration as people read it: 4.2 s, 3:07, 2:05:10."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _title(stage: Stage, cells: tuple[Cell, ...]) -> str:
    """Returns what is computed and for which cell: "tune 0.5/squarehead seed 1", "prepare for 12 cells"."""
    if len(cells) > 1:
        return f"{stage.name} for {len(cells)} cells"
    seeds = "" if cells[0].seed is None else f" seed {cells[0].seed}"
    return f"{stage.name} {cells[0].label}{seeds}"
