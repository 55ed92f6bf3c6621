"""The command line: list, show, check, plan, run, status, report, add, sync, ui, doctor.

Only arguments live here. What is heavy is imported inside the command that needs it, so that the commands
which only read the registry answer at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import output
from harness.problems import Problem, unknown
from harness.runs import disk

if TYPE_CHECKING:
    from harness.runs.plan import Plan
    from harness.runs.store import Store
    from harness.spec.entry import Entry

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sparse fine-tuning of language models: run the papers' tables, add your own, browse the results.",
)

Names = Annotated[list[str], typer.Argument(help="Entries, folders of entries (a paper), or 'all'.")]
SomeNames = Annotated[list[str] | None, typer.Argument(help="Entries or folders of entries; all when none is given.")]
Scale = Annotated[str, typer.Option(help="tiny: no downloads, a minute. small: real small models. paper: the paper's.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a setting by its dotted name: tune.steps=10.")]
Results = Annotated[Path | None, typer.Option(envvar="HARNESS_RESULTS", help="Where results go; results/ by default.")]

INTERRUPTED = 130
"""The status that typer makes of Ctrl-C."""


def main() -> None:
    """Runs the command line; a person's mistake ends with its message and status 2, never with a traceback."""
    output.speak_plainly()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except Problem as problem:
        _print_problems([problem])
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            print("\nInterrupted. What is done is kept; the same command goes on from there.", file=sys.stderr)
        raise
    except OSError as error:
        if output.lost():
            if not isinstance(error, BrokenPipeError):
                print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
            sys.exit(1)
        if error.errno not in disk.REFUSED:
            raise
        _print_problems([Problem(error.strerror, where=error.filename, hint=disk.ELSEWHERE)])
        sys.exit(2)


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
    _print_problems(problems)
    if problems:
        raise typer.Exit(2)
    print(f"{len(chosen)} {'entry' if len(chosen) == 1 else 'entries'}: no problem found")


@app.command()
def plan(names: Names, scale: Scale = "tiny", set: Set = None, results: Results = None):
    """Shows what a run would compute, what is there already, and what is missing; computes nothing."""
    from harness import show

    planned = _plan(_entries(names, scale, set), _store(results))
    show.plan(planned)
    if planned.missing:
        _print_problems(planned.missing)
        raise typer.Exit(2)


@app.command()
def run(
    names: Names,
    scale: Scale = "tiny",
    set: Set = None,
    results: Results = None,
    retry: Annotated[bool, typer.Option(help="Compute failed and damaged stages again.")] = False,
    fail_fast: Annotated[bool, typer.Option(help="Stop at the first failure.")] = False,
):
    """Runs experiments: what is done is kept, one cell's failure never stops the others.

    With --set, records, tables and plots go to results/trials/, never among those of the experiment itself.
    """
    from harness.runs import session

    entries = _entries(names, scale, set)
    results = _results(results)
    planned = _plan(entries, _store(results))
    if planned.missing:
        _print_problems(planned.missing)
        raise typer.Exit(2)
    place = results / "trials" / _slug(set) if set else results
    if not session.run(entries, planned, results, place=place, retry=retry, fail_fast=fail_fast):
        raise typer.Exit(1)


@app.command()
def status(names: SomeNames = None, scale: Scale = "tiny", set: Set = None, results: Results = None):
    """Shows the state of every stage: cached, running, interrupted, failed, damaged, missing, and what is stale."""
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
            entries += [spec.read(name, each) for each in spec.scales(name) if scale in (None, each)]
        except Problem as problem:
            wrong.append(problem)
    paths, trouble = session.report(entries, _results(results))
    trouble = [*wrong, *trouble]
    if not paths and not trouble:
        raise Problem("there is no record to report on", hint="run an experiment first: harness run quickstart")
    print("\n".join(map(str, paths)))
    _print_problems(trouble)
    if trouble:
        raise typer.Exit(2)


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
def prune(
    model: Annotated[str, typer.Argument(help="A model folder, a hub name (org/name@revision), or a mirror's.")],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not be there, or be empty.")],
    criterion: Annotated[str | None, typer.Option(help="Which weights matter: wanda, magnitude ...")] = None,
    solver: Annotated[str | None, typer.Option(help="Mask and weights together: sparsegpt.")] = None,
    pattern: Annotated[str | None, typer.Option(help="unstructured by default; 2:4 keeps 2 of 4.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Fraction of zeros; an N:M pattern gives it.")] = None,
    allocation: Annotated[str | None, typer.Option(help="How it is spread over the layers; uniform.")] = None,
    refiner: Annotated[str | None, typer.Option(help="Swaps pruned weights for kept ones: dsnot.")] = None,
    ramp: Annotated[str | None, typer.Option(help="Over which sparsities it goes; one_shot.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Layers that stay dense, by a glob of their names.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="A JSON Lines file with text or input_ids on each line, or a data set: c4.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="By the kind of the data; language_modelling:cut=crops draws as the papers do.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split that calibrates; train.")] = None,
    rows: Annotated[int | None, typer.Option(help="Only the first so many rows of the split.")] = None,
    samples: Annotated[int | None, typer.Option(help="Calibration examples; 128.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of an example of text; 2048.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draws the examples; 0.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per forward pass; 8.")] = None,
    search_data: Annotated[str | None, typer.Option(help="What a searching allocation is judged on.")] = None,
    search_task: Annotated[str | None, typer.Option(help="How that becomes examples; by default by --task.")] = None,
    search_split: Annotated[str | None, typer.Option(help="The split of it; validation.")] = None,
    search_limit: Annotated[int | None, typer.Option(help="Only the first so many of its examples.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16, in DIR too; float32.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; HARNESS_DEVICE, or the first GPU.")] = None,
):
    """Prunes one model into a folder that transformers loads; settings as in an experiment's prune section."""
    from harness import oneoff

    given = {
        "criterion": criterion, "solver": solver, "pattern": pattern, "sparsity": sparsity, "allocation": allocation,
        "refiner": refiner, "ramp": ramp, "skip": skip, "split": split, "rows": rows, "samples": samples, "seed": seed,
        "batch_size": batch_size, "search_data": search_data, "search_task": search_task,
        "search_split": search_split, "search_limit": search_limit, "dtype": dtype,
    }  # fmt: skip
    if device:
        os.environ["HARNESS_DEVICE"] = device
    try:
        oneoff.command(model, out, oneoff.section(given, calibration, task, length))
    except KeyboardInterrupt:
        raise Problem("interrupted: nothing was written", where=str(out)) from None


bench = typer.Typer(no_args_is_help=True, help="Measures whole jobs: time and memory, beside other programs.")
app.add_typer(bench, name="bench")


@bench.command(name="prune")
def bench_prune(
    model: Annotated[str, typer.Argument(help="A model folder, a hub name, or a mirror's.")],
    calibration: Annotated[Path, typer.Option(help="A JSON Lines file that every program reads.")],
    sparsity: Annotated[float, typer.Option(help="Fraction of zeros.")] = 0.5,
    methods: Annotated[str, typer.Option(help="Criteria and solvers, with commas between.")] = "wanda,sparsegpt",
    pattern: Annotated[str | None, typer.Option(help="Of our own; unstructured.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Calibration examples; all of the file.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 5,
    against: Annotated[
        list[str] | None,
        typer.Option(help="NAME=COMMAND or METHOD/NAME=COMMAND over {model} {calibration} {sparsity} {samples} {out}."),
    ] = None,
    scaling: Annotated[bool, typer.Option(help="Also run ours at three depths and three numbers of samples.")] = False,
    out: Annotated[Path | None, typer.Option(help="The record; results/bench/prune.<model>.json by default.")] = None,
    results: Results = None,
):
    """Times pruning, ours and other programs' commands: interleaved, one at a time, whole processes."""
    from harness.bench import prune as benchmark

    benchmark.command(
        model,
        calibration,
        [name.strip() for name in methods.split(",") if name.strip()],
        sparsity,
        samples=samples,
        pattern=pattern,
        repeats=repeats,
        against=against or (),
        grow=scaling,
        out=out or _results(results) / "bench" / f"prune.{Path(model).name}.json",
    )


@app.command()
def sync(
    uri: Annotated[str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="The tracking store or server.")] = None,
    results: Results = None,
):
    """Rebuilds the MLflow dashboard from the JSON records."""
    from harness.tracking import address, mlflow, record

    results = _results(results)
    records, damaged = record.readable(results / "records")
    uri = uri or address.store_uri(results)
    count = mlflow.sync(records, uri, results)
    print(f"{count} of {len(records)} records written to {address.shown(uri)}, the others were there")
    _print_problems(damaged)
    if damaged:
        raise typer.Exit(2)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the dashboard.")] = 5000, results: Results = None
):
    """Starts the MLflow dashboard on the store that the runs are logged to."""
    from harness.tracking import address

    command = address.ui_command(_results(results), port)
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

    findings = [*examination.examine(_results(results))]
    if entries:
        findings += examination.entries(listing.names(), listing.folder())
    show.findings(findings)


def _print_problems(problems: list[Problem]) -> None:
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)


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
            _print_problems([problem])
    return found


def _slug(overrides: list[str]) -> str:
    """Returns a folder's name for a set of overrides."""
    text = "+".join(sorted(overrides))
    return f"{re.sub(r'[^A-Za-z0-9._=+-]+', '-', text)[:60]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _results(results: Path | None) -> Path:
    from harness.spec import listing

    return results or listing.folder().parent / "results"


def _store(results: Path | None) -> Store:
    from harness.runs.store import Store

    return Store(_results(results) / "artifacts")


def _plan(entries: list[Entry], store: Store) -> Plan:
    from harness.runs.plan import plan
    from harness.spec.grid import cells

    return plan([cell for entry in entries for cell in cells(entry)], store)


if __name__ == "__main__":
    main()
