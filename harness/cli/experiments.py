"""Commands on the registry and its results: list, show, check, plan, run, status, report, clean, add, sync, ui ..."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import Laid, Results, Together, print_problems, results_folder
from harness.problems import Problem, unknown

if TYPE_CHECKING:
    from harness.runs.plan import Plan
    from harness.runs.store import Store
    from harness.spec.entry import Entry

app = typer.Typer()

Names = Annotated[list[str], typer.Argument(help="Entries, folders of entries (a paper), or 'all'.")]
SomeNames = Annotated[list[str] | None, typer.Argument(help="Entries or folders of entries; all when none is given.")]
Scale = Annotated[str, typer.Option(help="tiny: no downloads, a minute. small: real small models. paper: the paper's.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting by its dotted name: tune.steps=10.")]


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(help="experiments, or a kind of method: criterion, loss ...")] = "experiments",
):
    """Lists the experiments, or the methods of one kind with their options."""
    from harness import show
    from harness.rooms import ROOMS
    from harness.spec import listing

    if what == "experiments":
        show.experiments(listing.folder())
    elif what in ROOMS:
        show.methods(ROOMS[what])
    else:
        raise unknown("kind", what, ("experiments", *ROOMS))


@app.command()
def show(name: Annotated[str, typer.Argument(help="An entry.")], scale: Scale = "tiny", set: Set = None):
    """Shows one experiment at one scale: settings with their meaning, grid, the paper's numbers, claims."""
    from harness import show as shown

    shown.experiment(_entries([name], scale, set)[0])


@app.command()
def check(names: SomeNames = None):
    """Checks entries at every scale; each problem comes with its file and line."""
    from harness.spec import entry as spec

    chosen = _expand(names or ["all"])
    problems = [problem for name in chosen for problem in spec.check(name)]
    print_problems(problems)
    if problems:
        raise typer.Exit(2)
    print(f"{len(chosen)} {'entry' if len(chosen) == 1 else 'entries'}: no problem found")


@app.command()
def plan(
    names: Names,
    scale: Scale = "tiny",
    set: Set = None,
    results: Results = None,
    processes: Together = 1,
    parallel: Laid = "ddp",
):
    """Shows what a run would compute, what is there already, and what is missing; computes nothing."""
    from harness import show
    from harness.runs.processes import team

    together = team(processes, parallel)
    planned = _plan(_entries(names, scale, set), _store(results))
    show.plan(planned, together)
    if planned.missing:
        print_problems(planned.missing)
        raise typer.Exit(2)


@app.command()
def run(
    names: Names,
    scale: Scale = "tiny",
    set: Set = None,
    results: Results = None,
    retry: Annotated[bool, typer.Option(help="Compute failed and damaged stages again.")] = False,
    fail_fast: Annotated[bool, typer.Option(help="Stop at the first failure.")] = False,
    lean: Annotated[bool, typer.Option(help="Free weights as soon as nothing of this run has to read them.")] = False,
    processes: Together = 1,
    parallel: Laid = "ddp",
):
    """Runs experiments: what is done is kept, one cell's failure never stops the others.

    With --set, records, tables and plots go to results/trials/, never among those of the experiment itself.
    """
    from harness.runs import session
    from harness.runs.processes import team

    together = team(processes, parallel)
    entries = _entries(names, scale, set)
    results = results_folder(results)
    planned = _plan(entries, _store(results))
    if planned.missing:
        print_problems(planned.missing)
        raise typer.Exit(2)
    place = results / "trials" / _slug(set) if set else results
    if not session.run(
        entries, planned, results, place=place, retry=retry, fail_fast=fail_fast, lean=lean, team=together
    ):
        raise typer.Exit(1)


@app.command()
def status(names: SomeNames = None, scale: Scale = "tiny", set: Set = None, results: Results = None):
    """Shows the state of every stage: cached, freed, running, interrupted, failed, damaged, missing; what is stale."""
    from harness import show

    store = _store(results)
    show.status(_plan(_entries(names or ["all"], scale, set), store), store)


@app.command()
def report(
    names: SomeNames = None,
    scale: Annotated[str | None, typer.Option(help="One scale; by default all that have records.")] = None,
    results: Results = None,
):
    """Writes tables (Markdown, LaTeX), plots and one HTML page from the records, beside the papers' numbers."""
    from harness.runs import session
    from harness.spec import entry as spec

    entries, wrong = [], []
    for name in _expand(names or ["all"]):
        try:
            entries += spec.read_each(name, scale)
        except Problem as problem:
            wrong.append(problem)
    paths, trouble = session.report(entries, results_folder(results))
    trouble = [*wrong, *trouble]
    if not paths and not trouble:
        raise Problem("there is no record to report on", hint="run an experiment first: harness run quickstart")
    print("\n".join(map(str, paths)))
    print_problems(trouble)
    if trouble:
        raise typer.Exit(2)


@app.command()
def clean(
    names: SomeNames = None,
    scale: Annotated[str | None, typer.Option(help="One scale; by default all.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; otherwise it is only shown.")] = False,
    results: Results = None,
):
    """Frees the disk of weights that nothing has still to read; records stay, and a later run computes them again.

    Files that killed processes left half written go, too.
    """
    from harness import show
    from harness.runs import clean as cleaning
    from harness.runs import files
    from harness.runs.plan import plan
    from harness.spec import entry as spec
    from harness.spec.grid import cells

    store, chosen = _store(results), {*_expand(names or ["all"])}
    entries = [entry for name in _expand(["all"]) for entry in spec.read_each(name)]
    planned = plan([cell for entry in entries for cell in cells(entry)], store)
    if scale not in (None, *(entry.scale for entry in entries if entry.name in chosen)):
        raise unknown("scale", scale, sorted({entry.scale for entry in entries}))
    mine = [item for item in planned.cells if item.cell.entry in chosen and scale in (None, item.cell.scale)]
    found = cleaning.idle(planned, store, dict.fromkeys(stage for item in mine for stage in item.needs))
    left = files.abandoned(results_folder(results))
    if yes and (found or left) and (holder := store.busy()):
        hint = "clean when it is done, or give `harness run` --lean"
        raise Problem(f"{holder} is computing here, and may read these weights", where=str(store.root), hint=hint)
    show.weights(found)
    if left:
        print(f"{len(left)} {'file' if len(left) == 1 else 'files'} that killed processes left half written")
    if not found and not left:
        return
    if found and planned.unplanned:
        print(f"{planned.unplanned:,} cells cannot be planned on this machine; what they read may be among these")
    if not yes:
        print("--yes frees and removes them" if left else "--yes frees them")
        return
    kept, trouble = cleaning.remove(left), cleaning.free(found)
    if found:
        print(f"{len(found) - len(trouble)} of {len(found)} freed")
    print_problems(trouble + kept)
    if trouble or kept:
        raise typer.Exit(1)


@app.command()
def add(
    kind: Annotated[str, typer.Argument(help="An experiment, or a kind of method: criterion, refiner, loss ...")],
    name: Annotated[str, typer.Argument(help="paper/table for an experiment, a Python name for a method.")],
):
    """Writes a new experiment or method with its test, as a working start to edit."""
    from harness import scaffold
    from harness.spec import listing

    for path in scaffold.add(kind, name, listing.folder().parent):
        print(f"wrote {path}")
    print("next: edit it, then `harness check` and `pytest`")


@app.command()
def sync(
    uri: Annotated[str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="The tracking store or server.")] = None,
    results: Results = None,
):
    """Rebuilds the MLflow dashboard from the JSON records."""
    from harness.tracking import address, mlflow, record

    results = results_folder(results)
    records, damaged = record.readable(results / "records")
    uri = uri or address.store_uri(results)
    count = mlflow.sync(records, uri, results)
    print(f"{count} of {len(records)} records written to {address.shown(uri)}, the others were there")
    print_problems(damaged)
    if damaged:
        raise typer.Exit(2)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the dashboard.")] = 5000, results: Results = None
):
    """Starts the MLflow dashboard on the store that the runs are logged to."""
    from harness.tracking import address

    command = address.ui_command(results_folder(results), port)
    print(f"the dashboard opens at {address.ui_address(port)}", flush=True)
    os.execvp(command[0], command)


@app.command()
def doctor(
    entries: Annotated[bool, typer.Option(help="Also say which entries can run here.")] = True, results: Results = None
):
    """Says what this machine can and cannot run, and why."""
    from harness import doctor as examination
    from harness import show
    from harness.spec import listing

    findings = [*examination.examine(results_folder(results))]
    if entries:
        findings += examination.entries(listing.names(), listing.folder())
    show.findings(findings)


def _expand(names: list[str]) -> list[str]:
    """Returns the entries meant by names, folders of entries and 'all', in order and each once."""
    from harness.spec import listing

    known = listing.names()
    found: dict[str, None] = {}
    for name in names:
        clean = name.removesuffix(".yaml").removeprefix("experiments/").rstrip("/")
        inside = [n for n in known if clean in ("all", n) or n.startswith(f"{clean}/")]
        if not inside:
            raise unknown("experiment", name, [*known, *{n.partition("/")[0] for n in known if "/" in n}])
        found.update(dict.fromkeys(inside))
    return list(found)


def _entries(names: list[str], scale: str, set: list[str] | None) -> list[Entry]:
    """Reads entries; what came by a folder's name or 'all' and is wrong, or lacks the scale, is told and left out."""
    from harness.spec import entry as spec

    found, asked = [], {name.removesuffix(".yaml").removeprefix("experiments/") for name in names}
    for name in _expand(names):
        try:
            if name in asked or scale in spec.scales(name):
                found.append(spec.read(name, scale, set=tuple(set or ())))
        except Problem as problem:
            if name in asked:
                raise
            print_problems([problem])
    return found


def _slug(overrides: list[str]) -> str:
    """Returns a folder's name for a set of overrides."""
    text = "+".join(sorted(overrides))
    return f"{re.sub(r'[^A-Za-z0-9._=+-]+', '-', text)[:60]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _store(results: Path | None) -> Store:
    from harness.runs.store import Store

    return Store(results_folder(results) / "artifacts")


def _plan(entries: list[Entry], store: Store) -> Plan:
    from harness.runs.plan import plan
    from harness.spec.grid import cells

    return plan([cell for entry in entries for cell in cells(entry)], store)
