"""One piece of work outside any experiment: a model in, a model folder out (`harness prune`, `tune`, `quantize`).

The settings are those of an experiment's section, checked by the same pydantic model; the work is the stage's own.
A folder appears when the whole of it is on the disk: until then the work lies in a hidden folder beside it, which an
error, Ctrl-C or SIGTERM removes; but for the checkpoints of a fine-tuning, from which the same command goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from harness import output, rooms
from harness.data import _jsonl, jsonl, jsonl_pairs
from harness.oneoff import unfinished
from harness.problems import Problem
from harness.runs import disk, files, processes
from harness.runs.decides import split
from harness.runs.job import Job, Progress
from harness.runs.processes import ALONE, Processes
from harness.sources import Source
from harness.spec.faults import problems_of

if TYPE_CHECKING:
    from rich.console import Console

LENGTH = 2048
"""Tokens of a calibration window where nothing else is said: what the pruning papers take."""
NO_DATA = {"data": "prose", "task": "language_modelling"}
"""Fills the section of a method that looks at no data; nothing is read from it."""
NO_CALIBRATION = "--calibration FILE.jsonl, with text on each line (for T5 source and target), or a data set: c4, wmt14"
"""What may be given where a method looks at data."""
FILES = {module.__name__.rpartition(".")[2]: module.FORMS for module in (jsonl, jsonl_pairs)}
"""The data choices of a JSON Lines file, with the forms of their rows."""


def checked(kind: type[BaseModel], given: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a resolved section.

    Args:
        kind: The section's pydantic model.
        given: Its settings by name; None and empty ones are left to their defaults.
        more: What is laid over them: data and task.

    Raises:
        Problem: A setting is wrong, as in an experiment.
    """
    raw = {**_said(given), **more}
    try:
        return kind.model_validate(raw).model_dump(mode="json")
    except ValidationError as error:
        first, *others = problems_of(error, raw, kind, lambda dotted: "")
        also = "; ".join(problem.what for problem in others)
        hint = "\n  ".join(filter(None, (first.hint, also and f"and: {also}")))
        raise Problem(first.what, nearest=first.nearest, hint=hint or None) from error


def reads(read: str | None, task: str | None = None, length: int | None = None) -> dict[str, str]:
    """Returns the data and the task of a section that reads this, or of one that reads nothing."""
    if read is None:
        return NO_DATA
    data = data_of(read)
    return {"data": data, "task": task_of(data, task, length)}


def _said(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value not in (None, [], ())}


def data_of(calibration: str) -> str:
    """Returns the data choice of what was given: the choice itself, or that of a JSON Lines file, by its first row."""
    if not (calibration.endswith(".jsonl") or os.path.isfile(os.path.expanduser(calibration))):
        return calibration
    if "," in calibration:
        raise Problem(f"the path {calibration!r} has a comma, which ends an option's value", hint="link or rename it")
    first = _jsonl.columns(calibration)
    name = next((name for name, forms in FILES.items() if any(first >= set(form) for form in forms)), "jsonl")
    return f"{name}:path={calibration}"


def task_of(data: str, task: str | None, length: int | None) -> str:
    """Returns the task with its length written in."""
    kind = rooms.ROOMS["data"].method(rooms.parse(data).name).constants.get("KIND")
    room = rooms.ROOMS["task"]
    if task is None:
        task = next((name for name in room.names() if room.method(name).constants.get("READS") == kind), "")
    choice = rooms.parse(task)
    method = room.method(choice.name)
    if length is None and kind == "text" and "length" in method.options:
        length = choice.options.get("length", LENGTH)
    if length is None:
        return task
    if "length" not in method.options:
        raise Problem(f"task {choice.name!r} has no length", hint="leave --length out")
    if choice.options.get("length", length) != length:
        raise Problem(f"--length {length} and the task's length={choice.options['length']} differ", hint="give one")
    return str(rooms.Choice(choice.name, {**choice.options, "length": length}))


def refuse_tiny(*names: str) -> None:
    """Refuses models that only an experiment makes."""
    if made := next((name for name in names if name.startswith("tiny/")), None):
        raise Problem(f"{made} is made by an experiment", hint="give a model folder, or a model by its hub name")


def check_folder(folder: Path) -> Path:
    """Returns the absolute path of a folder that may be written: it is not there, or empty.

    Raises:
        Problem: Something is there, or no folder can be.
    """
    try:
        folder = folder.expanduser().resolve()
        folder.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long; a null byte; `~nobody`
        said = getattr(error, "strerror", None) or error
        raise Problem(f"{str(folder)!r} cannot be a folder: {said}", hint="give another one with --out") from error
    if folder.is_dir():
        if any(folder.iterdir()):
            raise Problem("this folder is not empty", where=str(folder), hint="give a new one with --out")
    elif folder.exists():
        raise Problem("this is a file", where=str(folder), hint="give a new folder with --out")
    try:
        disk.check_writable(folder)
    except Problem as problem:
        raise Problem(problem.what, where=problem.where, hint="choose another place with --out") from problem
    return folder


def work(
    name: str,
    options: Mapping[str, Any],
    parents: Mapping[str, Source | Path],
    result: Path,
    scratch: Path,
    team: Processes = ALONE,
) -> Generator[Progress, None, None]:
    """Returns the steps of a stage's work.

    Args:
        name: The stage.
        options: Its section, resolved.
        parents: What it reads, by role.
        result: The folder that it writes.
        scratch: A folder for what does not stay.
        team: How many processes compute it, and how, where it trains.
    """
    output.quiet()
    from harness.runs.execute import load_stage

    decides, handling = split(name, options)
    read = {
        role: one.path if isinstance(one, Source) and one.kind == "folder" else one for role, one in parents.items()
    }
    job = Job({**handling, **decides}, read, result, scratch)
    if team.compute(name):
        return processes.run(f"harness.stages.{name}", job, team)
    return load_stage(name).run(job)


def tell(lines: Mapping[str, str], console: Console) -> None:
    """Prints what came of the work, a line for each name."""
    for name, text in lines.items():
        console.print(f"{name:13} {text}", markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def becoming(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Gives an empty folder that becomes `folder` when the work on it ends well, and a scratch folder."""
    with _parents_of(folder):
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name[: unfinished.SHOWN]}.", dir=folder.parent))
        try:
            with _becoming(folder, work) as given:
                yield given
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def going_on(folder: Path, settings: Mapping[str, Any], console: Console) -> Iterator[tuple[Path, Path]]:
    """Gives the same as `becoming`; a scratch folder with a checkpoint stays after an error, and comes back.

    Args:
        folder: What the work becomes.
        settings: All that the result follows from; other ones begin afresh.
        console: Is told what is kept, and what is gone on from.

    Raises:
        Problem: Another process is at work on the folder; or Ctrl-C ended the work, and its checkpoint is kept.
    """
    with _parents_of(folder):
        work, lease = unfinished.begin(folder, settings, console)
        ended = False
        try:
            with _becoming(folder, work) as given:
                yield given
            ended = True
        except BaseException as error:
            if kept := unfinished.kept(work):
                said = f"its checkpoint is kept: {kept}", "the same command goes on from there"
                if isinstance(error, KeyboardInterrupt):
                    raise Problem(f"interrupted; {said[0]}", where=str(folder), hint=said[1]) from None
                console.print("; ".join(said), markup=False, highlight=False, soft_wrap=True)
            raise
        finally:
            if ended or not unfinished.kept(work):
                unfinished.remove(work, lease)
            else:
                lease.release()


@contextlib.contextmanager
def _parents_of(folder: Path) -> Iterator[None]:
    """Makes the folders that a folder lies in; those that are empty afterwards are removed."""
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # it holds the result, what is kept, or somebody else's files
                parent.rmdir()


@contextlib.contextmanager
def _becoming(folder: Path, work: Path) -> Iterator[tuple[Path, Path]]:
    """Gives the empty `result` and the `scratch` folder of some work, and moves the first where it belongs."""
    with _terminated_as_interrupted():
        shutil.rmtree(work / "result", ignore_errors=True)
        for name in ("result", "scratch"):
            (work / name).mkdir(exist_ok=True)
        yield work / "result", work / "scratch"
        files.sync(work / "result")
        (work / "result").rename(folder)
        files.sync_folder(folder.parent)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Makes SIGTERM an exception, so that what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def follow(steps: Iterator[Progress], title: str, console: Console) -> None:
    """Exhausts a stage's steps under a progress bar with the time left."""
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
    )
    with (
        contextlib.closing(steps),
        bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown,
    ):
        bar = shown.add_task(title, total=None)
        for step in steps:
            shown.update(bar, completed=step.done, total=step.total, description=f"{title}, {step.unit}")
