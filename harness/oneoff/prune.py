"""`harness prune`: one pruning outside any experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import oneoff, rooms
from harness.data._rows import head
from harness.problems import Problem
from harness.runs.decides import calibrates, is_judged
from harness.runs.origins import Origins
from harness.sources import Source, snapshot
from harness.spec import fits
from harness.spec.sections import Prune
from harness.tasks._lengths import CONTEXTS

if TYPE_CHECKING:
    from rich.console import Console

FILE = "prune.json"


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
    read = calibration or given.get("search_data")
    options = oneoff.checked(Prune, given, oneoff.reads(read, task, length))
    if calibration is None and calibrates(options):
        raise Problem("this method looks at calibration data, and none is given", hint=oneoff.NO_CALIBRATION)
    if read is None and is_judged(options):
        raise Problem("this allocation is judged on held-out data, and none is given", hint="--search-data wikitext2")
    return options


def command(model: str, out: Path, options: Mapping[str, Any]) -> None:
    """Checks everything, says what it will take, prunes, and prints what came of it.

    Raises:
        Problem: Something is wrong; nothing has been written then.
    """
    from harness import show
    from harness.runs.estimates import pruning

    folder = oneoff.check_folder(out)
    source = sources(model, options)
    from harness.device import device

    device()
    show.console.print(f"{source.name}: {pruning.estimate(options, source)}", highlight=False)
    report = prune(source, folder, options, show.console)
    show.pruned(report, folder, fits.config_at(folder))


def sources(model: str, options: Mapping[str, Any]) -> Source:
    """Finds the model and the calibration data, and checks what can be checked without loading anything.

    Returns:
        Where the model comes from.

    Raises:
        Problem: One of them cannot be had, or they cannot go together.
    """
    oneoff.refuse_tiny(model)
    origins, looks, judged = Origins(), calibrates(options), is_judged(options)
    source = origins.model(model)
    if looks:
        origins.data(options)
    if looks or judged:
        origins.fits({"model": model, "prepare": None, "prune": options, "tune": None, "evaluate": {}})
    if judged:
        origins.search(options)
    origins.check()
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
    if rooms.parse(options["data"]).name in oneoff.FILES:
        rows = head(rooms.bind("data", options["data"])(options["split"]), options["rows"])
        if "text" not in rows[0] and len(rows) < options["samples"]:
            there = f"{len(rows)} rows of {' and '.join(rows[0])}"
            text = f"{options['samples']} samples are asked for, and there are {there}"
            raise Problem(text, hint=f"--samples {len(rows)}")
        if "input_ids" in rows[0]:
            longest = max(len(row["input_ids"]) for row in rows)
    if context and longest > context:
        text = f"an example of {longest} tokens is longer than the model's context of {context}"
        raise Problem(text, hint=f"--length {context}, or rows of no more input_ids")


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
    with oneoff.becoming(folder) as (result, scratch):
        oneoff.follow(
            oneoff.work("prune", options, {"model": source}, result, scratch), f"pruning {source.name}", console
        )
        return json.loads((result / FILE).read_text(encoding="utf8"))
