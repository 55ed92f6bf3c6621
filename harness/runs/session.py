"""A run as a person sees it: the plan is carried out, followed on the terminal and in MLflow, recorded and reported.

execute -> bars, MLflow (listen)    every finished cell -> its record    every entry -> tables, plots, page
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.problems import Problem
from harness.tracking import record

if TYPE_CHECKING:
    from harness.reporting.compare import Comparison
    from harness.runs.plan import Plan
    from harness.spec.entry import Entry

QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
"""What keeps the libraries' own bars and warnings out of ours; the user's settings win."""


def run(
    entries: list[Entry],
    plan: Plan,
    results: Path,
    *,
    place: Path | None = None,
    retry: bool = False,
    fail_fast: bool = False,
) -> bool:
    """Carries out the plan of some entries, keeps records, and prints their tables.

    Args:
        entries: The experiments, each at its scale.
        plan: Of all their cells.
        results: The results folder, with the store and the dashboard.
        place: Where records, tables and plots go; the results folder by default.
        retry: Compute failed and damaged stages again.
        fail_fast: Stop at the first failure.

    Returns:
        Whether every cell has its result and every entry its table.
    """
    place = place or results
    if not retry and _all_there(entries, plan, results, place):
        print(f"nothing to do: {plan.summary()}")
        _close([_table(entry, place) for entry in entries], place)
        return True
    from harness.runs.events import CellDone
    from harness.runs.execute import execute
    from harness.runs.store import Store
    from harness.tracking.live import Tracker
    from harness.tracking.progress import Bars

    os.environ.update(QUIET | os.environ)
    by_name = {entry.name: entry for entry in entries}
    done, trouble, tables = 0, [], []
    computing = execute(plan, Store(results / "artifacts"), retry=retry, fail_fast=fail_fast)
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
        for comparison in _comparisons(entries, place, trouble):
            files = _write(comparison, place)
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
        trouble.append(
            Problem(f"{what} could not be written: {error}", hint="mend that, and give the same command again")
        )


def report(entries: Iterable[Entry], results: Path) -> tuple[list[Path], list[Problem]]:
    """Writes tables and plots of every entry that has records, and one page of them all.

    Returns:
        The paths, and what is wrong with the entries that could not be reported.
    """
    from harness.reporting import page

    trouble: list[Problem] = []
    found = list(_comparisons(entries, results, trouble))
    paths = [path for comparison in found for path in _write(comparison, results)]
    return [*paths, page.write(found, results / "report")] if found else [], trouble


def _comparisons(entries: Iterable[Entry], place: Path, trouble: list[Problem]) -> Iterator[Comparison]:
    from harness.reporting.compare import compare

    for entry in entries:
        with _collecting(trouble, f"the table of {entry.name}"):
            records = record.read_all(place / "records", entry.name, entry.scale)
            if records:
                yield compare(entry, records)


def _write(comparison: Comparison, results: Path) -> list[Path]:
    from harness.reporting import plots, tables

    return [*tables.write(comparison, results / "tables"), *plots.write(comparison, results / "plots")]


def _table(entry: Entry, place: Path) -> Path:
    return place / "tables" / f"{entry.name}.{entry.scale}.md"


def _all_there(entries: list[Entry], plan: Plan, results: Path, place: Path) -> bool:
    """Says whether all is computed, undamaged where records read it, recorded under these keys, and in tables."""
    from harness.runs.store import Store

    if plan.counts["cached"] < len(plan.states) or not all(_table(entry, place).is_file() for entry in entries):
        return False
    store = Store(results / "artifacts")
    for item in plan.cells:
        path = record.place(vars(item.cell), place / "records")
        try:
            said = record.read(path)
        except (OSError, Problem):  # absent or damaged: it is written anew
            return False
        keys = {role: stage["key"] for role, stage in said["stages"].items()}
        if keys != {role: stage.key for role, stage in item.stages.items()}:
            return False
        for role, stage in item.stages.items():
            if role.startswith(record.EVALUATE):
                store.open(stage)
    return True


def _close(tables: list[Path], results: Path) -> None:
    """Prints the tables, where the plots are, and how to open the dashboard."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for path in tables:
        console.print(Markdown(path.read_text(encoding="utf8")))
        plots = sorted((results / "plots" / path.relative_to(results / "tables")).parent.glob(f"{path.stem}.*.png"))
        console.print(f"\ntable  {path}", *(f"plot   {plot}" for plot in plots), sep="\n", markup=False)
    console.print("browse harness ui", markup=False)
