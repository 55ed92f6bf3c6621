"""A run as a person sees it: the plan is carried out, followed on the terminal and in MLflow, recorded and reported.

execute -> bars, MLflow (listen)    every finished cell -> its record    every entry -> tables, plots, page
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness import output
from harness.problems import Problem
from harness.runs import disk
from harness.runs.processes import ALONE, Processes, check_alone
from harness.tracking import record
from harness.tracking.settings import agrees

if TYPE_CHECKING:
    from harness.reporting.compare import Comparison
    from harness.runs.plan import Plan
    from harness.spec.entry import Entry

KEPT = ("records", "tables", "plots")
"""What a run writes besides the artifacts, a folder each."""


def run(
    entries: list[Entry],
    plan: Plan,
    results: Path,
    *,
    place: Path | None = None,
    retry: bool = False,
    fail_fast: bool = False,
    lean: bool = False,
    team: Processes = ALONE,
) -> bool:
    """Carries out the plan of some entries, keeps records, and prints their tables.

    Args:
        entries: The experiments, each at its scale.
        plan: Of all their cells.
        results: The results folder, with the store and the dashboard.
        place: Where records, tables and plots go; the results folder by default.
        retry: Compute failed and damaged stages again.
        fail_fast: Stop at the first failure.
        lean: Free the weights of a stage as soon as nothing of the plan has still to read them.
        team: In how many processes training stages are computed.

    Returns:
        Whether every cell has its result and every entry its table.

    Raises:
        Problem: A launcher began this process as one of several; something must be written, and cannot be; or all is
            there, and something of it is damaged.
    """
    check_alone()
    place = place or results
    if not (retry or lean) and _all_there(entries, plan, results, place):
        print(f"nothing to do: {plan.summary()}")
        _close([_table(entry, place) for entry in entries], place)
        return True
    for folder in ("artifacts", *KEPT):
        disk.check_writable((place if folder in KEPT else results) / folder)
    from harness.runs.events import CellDone
    from harness.runs.execute import execute
    from harness.runs.store import Store
    from harness.tracking.live import Tracker
    from harness.tracking.progress import Bars

    output.quiet()
    by_name = {entry.name: entry for entry in entries}
    done, trouble, tables = 0, [], []
    store = Store(results / "artifacts")
    computing = execute(plan, store, retry=retry, fail_fast=fail_fast, lean=lean, team=team)
    with Tracker(plan, by_name, results) as tracker:
        with Bars(plan) as bars, contextlib.closing(computing) as events:
            for event in events:
                if isinstance(event, CellDone):
                    done += 1
                    cell = event.cell
                    with _collecting(trouble, f"the record of {cell.entry} {cell.label}"):
                        said = record.build(by_name[cell.entry], cell, event.folders, results)
                        record.write(said, place / "records")
                tracker.listen(event)
                bars.listen(event)
        for comparison, files in _reported(entries, place, trouble):
            tables.append(files[0])
            if place == results:
                tracker.report(comparison.entry, comparison.scale, files, files[0].read_text(encoding="utf8"))
    _close(tables, place)
    for problem in trouble:
        print(f"error: {problem}", file=sys.stderr)
    return done == len(plan.cells) and not trouble


@contextlib.contextmanager
def _collecting(trouble: list[Problem], what: str) -> Iterator[None]:
    """Notes what goes wrong with one thing, so that the others go on."""
    try:
        yield
    except Problem as problem:
        trouble.append(problem)
    except OSError as error:
        said = f"{what} could not be written: {error.strerror or error}"
        hint = "mend that, and give the same command again: what is computed is kept"
        trouble.append(Problem(said, where=error.filename, hint=hint))


def report(entries: Iterable[Entry], results: Path) -> tuple[list[Path], list[Problem]]:
    """Writes tables and plots of every entry that has records, and one page of them all.

    Returns:
        The paths, and what is wrong with the entries that could not be reported.
    """
    from harness.reporting import page

    trouble: list[Problem] = []
    found = list(_reported(entries, results, trouble))
    paths = [path for _, written in found for path in written]
    with _collecting(trouble, "the page"):
        paths += [page.write([comparison for comparison, _ in found], results / "report")] if found else []
    return paths, trouble


def _reported(entries: Iterable[Entry], place: Path, trouble: list[Problem]) -> Iterator[tuple[Comparison, list[Path]]]:
    """Yields the comparison of every entry that has records, with its tables and plots, the Markdown table first."""
    from harness.reporting import plots, tables
    from harness.reporting.compare import compare

    for entry in entries:
        with _collecting(trouble, f"the table of {entry.name}"):
            records = record.read_all(place / "records", entry.name, entry.scale)
            if records:
                one = compare(entry, records)
                yield one, [*tables.write(one, place / "tables"), *plots.write(one, place / "plots")]


def _table(entry: Entry, place: Path) -> Path:
    return place / "tables" / f"{entry.name}.{entry.scale}.md"


def _all_there(entries: list[Entry], plan: Plan, results: Path, place: Path) -> bool:
    """Says whether all is computed, undamaged where records read it, recorded as it is asked, and in tables."""
    from harness.runs.store import Store

    if plan.lacking or not all(_table(entry, place).is_file() for entry in entries):
        return False
    store = Store(results / "artifacts")
    for item in plan.cells:
        path = record.place(vars(item.cell), place / "records")
        try:
            said = record.read(path)
        except (OSError, Problem):  # absent or damaged: it is written anew
            return False
        keys = {role: stage["key"] for role, stage in said["stages"].items()}
        if keys != {role: stage.key for role, stage in item.stages.items()} or not agrees(said, item.cell):
            return False
        for stage in item.stages.values():
            store.open(stage, every_byte=False)
    return True


def _close(tables: list[Path], results: Path) -> None:
    """Prints the tables, where the plots are, and how to open the dashboard."""
    from rich.markdown import Markdown

    console = output.console()
    for path in tables:
        console.print(Markdown(path.read_text(encoding="utf8")))
        plots = sorted((results / "plots" / path.relative_to(results / "tables")).parent.glob(f"{path.stem}.*.png"))
        console.print(f"\ntable  {path}", *(f"plot   {plot}" for plot in plots), sep="\n", markup=False)
    console.print("browse harness ui", markup=False)
