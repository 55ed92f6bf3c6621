"""A run as a person sees it: the plan is carried out, followed on the terminal and in MLflow, recorded and reported.

execute -> bars, MLflow (listen)    every finished cell -> its record    every entry -> tables, plots, page
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.tracking import record

if TYPE_CHECKING:
    from harness.reporting.compare import Comparison
    from harness.runs.plan import Plan
    from harness.spec.entry import Entry


QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
"""What keeps the libraries' own bars and warnings out of ours; the user's settings win."""


def run(entries: list[Entry], plan: Plan, results: Path, *, retry: bool = False, fail_fast: bool = False) -> bool:
    """Carries out the plan of some entries, keeps records, and prints their tables.

    Args:
        entries: The experiments, each at its scale.
        plan: Of all their cells.
        results: The results folder.
        retry: Compute failed and damaged stages again.
        fail_fast: Stop at the first failure.

    Returns:
        Whether every cell has its result.
    """
    if not retry and plan.counts["cached"] == len(plan.states) and (tables := _written(entries, plan, results)):
        print(f"nothing to do: {plan.summary()}")
        _close(tables, results)
        return True
    return _execute({entry.name: entry for entry in entries}, plan, results, retry, fail_fast)


def _execute(entries: Mapping[str, Entry], plan: Plan, results: Path, retry: bool, fail_fast: bool) -> bool:
    from harness.runs.events import CellDone, StageFailed
    from harness.runs.execute import execute
    from harness.runs.store import Store
    from harness.tracking.live import Tracker
    from harness.tracking.progress import Bars

    os.environ.update(QUIET | os.environ)
    done, failed = 0, False
    store = Store(results / "artifacts")
    with Tracker(plan, entries, results) as tracker:
        with (
            Bars(plan) as bars,
            contextlib.closing(execute(plan, store, retry=retry, fail_fast=fail_fast)) as events,
        ):
            for event in events:
                if isinstance(event, CellDone):
                    cell = event.cell
                    said = record.build(entries[cell.entry], cell, event.folders, results)
                    record.write(said, results / "records")
                    done += 1
                failed = failed or isinstance(event, StageFailed)
                tracker.listen(event)
                bars.listen(event)
        tables = []
        for comparison in _comparisons(entries.values(), results):
            files = _write(comparison, results)
            tables.append(files[0])
            tracker.report(comparison.entry, comparison.scale, files, files[0].read_text(encoding="utf8"))
    _close(tables, results)
    return not failed and done == len(plan.cells)


def report(entries: Iterable[Entry], results: Path) -> list[Path]:
    """Writes tables and plots of every entry that has records, and one page of them all; returns the paths."""
    from harness.reporting import page

    found = list(_comparisons(entries, results))
    paths = [path for comparison in found for path in _write(comparison, results)]
    return [*paths, page.write(found, results / "report")] if found else []


def _comparisons(entries: Iterable[Entry], results: Path) -> Iterable[Comparison]:
    from harness.reporting.compare import compare

    for entry in entries:
        records = record.read_all(results / "records", entry.name, entry.scale)
        if records:
            yield compare(entry, records)


def _write(comparison: Comparison, results: Path) -> list[Path]:
    from harness.reporting import plots, tables

    return [*tables.write(comparison, results / "tables"), *plots.write(comparison, results / "plots")]


def _written(entries: list[Entry], plan: Plan, results: Path) -> list[Path] | None:
    """Returns the entries' tables, or None unless every record and table of the plan is there."""
    tables = [results / "tables" / f"{entry.name}.{entry.scale}.md" for entry in entries]
    records = [record.place(vars(item.cell), results / "records") for item in plan.cells]
    return tables if all(path.is_file() for path in (*tables, *records)) else None


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
