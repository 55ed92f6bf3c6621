"""One pruning outside any experiment: a model in, a model folder out (`harness prune`).

The settings are those of an experiment's `prune` section and are checked by the same pydantic model; the work is the
prune stage's own. The folder appears when the whole of it is on the disk: until then the work lies in a hidden folder
beside it, which an error, Ctrl-C or SIGTERM removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness import rooms
from harness.data._rows import head
from harness.problems import Problem
from harness.runs import disk, files
from harness.runs.decides import calibrates, is_judged, split
from harness.runs.job import Job, Progress
from harness.runs.origins import Origins
from harness.sources import Source, snapshot
from harness.spec import fits
from harness.spec.faults import problems_of
from harness.spec.sections import Prune
from harness.tasks._lengths import CONTEXTS

if TYPE_CHECKING:
    from rich.console import Console

LENGTH = 2048
"""Tokens of a calibration window where nothing else is said: what the pruning papers take."""
NO_DATA = {"data": "prose", "task": "language_modelling"}
"""Fills the section of a method that looks at no data; nothing is read from it."""


def section(
    given: Mapping[str, Any], calibration: str | None, task: str | None = None, length: int | None = None
) -> dict[str, Any]:
    """Returns the resolved `prune` section.

    Args:
        given: Its settings by name; None and empty ones are left to their defaults.
        calibration: A data choice, or a JSON Lines file; None for a method that needs none, though `search_data` may
            judge it.
        task: How rows become examples; by default the task that reads data of this kind.
        length: Tokens of an example, for a task with that option; for text 2048 by default.

    Raises:
        Problem: A setting is wrong, as in an experiment; or the method looks at data, and none is given.
    """
    raw = {key: value for key, value in given.items() if value not in (None, [], ())}
    read = calibration or raw.get("search_data")
    if read is None:
        raw |= NO_DATA
    else:
        raw["data"] = _data(read)
        raw["task"] = _task(raw["data"], task, length)
    try:
        options = Prune.model_validate(raw).model_dump(mode="json")
    except ValidationError as error:
        first, *more = problems_of(error, raw, Prune, lambda dotted: "")
        also = "; ".join(problem.what for problem in more)
        hint = "\n  ".join(filter(None, (first.hint, also and f"and: {also}")))
        raise Problem(first.what, nearest=first.nearest, hint=hint or None) from error
    if calibration is None and calibrates(options):
        hint = "--calibration FILE.jsonl, with text or input_ids on each line, or a data set: --calibration c4"
        raise Problem("this method looks at calibration data, and none is given", hint=hint)
    if read is None and is_judged(options):
        raise Problem("this allocation is judged on held-out data, and none is given", hint="--search-data wikitext2")
    return options


def command(model: str, out: Path, options: Mapping[str, Any]) -> None:
    """Checks everything, says what it will take, prunes, and prints what came of it.

    Raises:
        Problem: Something is wrong; nothing has been written then.
    """
    from harness import show
    from harness.runs import estimate

    folder = check_folder(out)
    source = sources(model, options)
    from harness.device import device

    device()
    show.console.print(f"{source.name}: {estimate.pruning(options, source)}", highlight=False)
    report = prune(source, folder, options, show.console)
    show.pruned(report, folder, fits.config_at(folder))


def _data(calibration: str) -> str:
    if not (calibration.endswith(".jsonl") or Path(calibration).expanduser().is_file()):
        return calibration
    if "," in calibration:
        raise Problem(f"the path {calibration!r} has a comma, which ends an option's value", hint="link or rename it")
    return f"jsonl:path={calibration}"


def _task(data: str, task: str | None, length: int | None) -> str:
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


def sources(model: str, options: Mapping[str, Any]) -> Source:
    """Finds the model and the calibration data, and checks what can be checked without loading anything.

    Returns:
        Where the model comes from.

    Raises:
        Problem: One of them cannot be had, or they cannot go together.
    """
    if model.startswith("tiny/"):
        raise Problem(f"{model} is made by an experiment", hint="give a model folder, or a model by its hub name")
    origins, looks, judged = Origins(), calibrates(options), is_judged(options)
    source = origins.model(model)
    if looks:
        origins.data(options)
    if looks or judged:
        origins.fits({"model": model, "prepare": None, "prune": options, "tune": None, "evaluate": {}})
    if judged:
        origins.search(options)
    if origins.missing:
        raise next(iter(origins.missing.values()))
    folder = snapshot(source)
    config = fits.config_at(folder) if folder and (folder / "config.json").is_file() else {}
    if wrong := fits.wrong_width(config, options["pattern"]):
        raise wrong
    if looks:
        _fits(options, config)
    return source


def _fits(options: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Checks that there are enough examples, none longer than the model reads, where that is quick to say."""
    context = next((config[key] for key in CONTEXTS if isinstance(config.get(key), int)), None)
    longest = rooms.parse(options["task"]).options.get("length", 0)
    if rooms.parse(options["data"]).name == "jsonl":
        rows = head(rooms.bind("data", options["data"])(options["split"]), options["rows"])
        if "input_ids" in rows[0]:
            if len(rows) < options["samples"]:
                text = f"{options['samples']} samples are asked for, and there are {len(rows)} rows of input_ids"
                raise Problem(text, hint=f"--samples {len(rows)}")
            longest = max(len(row["input_ids"]) for row in rows)
    if context and longest > context:
        text = f"an example of {longest} tokens is longer than the model's context of {context}"
        raise Problem(text, hint=f"--length {context}, or rows of no more input_ids")


def check_folder(folder: Path) -> Path:
    """Returns the absolute path of a folder that may be written: it is not there, or empty.

    Raises:
        Problem: Something is there.
    """
    folder = folder.expanduser().resolve()
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


def prune(source: Source, folder: Path, options: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """Prunes a model into a folder that is not there yet, or empty.

    Args:
        source: The model.
        folder: The result: model and processor as transformers reads them, `keep.safetensors`, `prune.json`.
        options: A resolved `prune` section.
        console: Where the progress is shown, if it is a terminal.

    Returns:
        What `prune.json` says.
    """
    from harness.runs.session import QUIET

    os.environ.update(QUIET | os.environ)
    from harness.stages import prune as stage

    with _becoming(folder) as (result, scratch):
        decides, handling = split("prune", options)
        parent = source.path if source.kind == "folder" else source
        job = Job({**handling, **decides}, {"model": parent}, result, scratch)
        follow(stage.run(job), f"pruning {source.name}", console)
        report = json.loads((result / stage.FILE).read_text(encoding="utf8"))
    return report


@contextlib.contextmanager
def _becoming(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Gives an empty folder that becomes `folder` when the work on it ends well, and a scratch folder."""
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with _terminated_as_interrupted():
            for name in ("result", "scratch"):
                (work / name).mkdir()
            yield work / "result", work / "scratch"
            files.sync(work / "result")
            (work / "result").rename(folder)
            files.sync_folder(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # it holds the result, or somebody else's files
                parent.rmdir()


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
