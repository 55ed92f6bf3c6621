"""`harness tune`: one sparse fine-tuning outside any experiment.

Masks are those beside the model, or, where somebody else pruned it, its exact zeros.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import oneoff
from harness.problems import Problem
from harness.runs.decides import prunes
from harness.runs.keys import version
from harness.runs.origins import Origins
from harness.runs.processes import ALONE, Processes
from harness.sources import Source, snapshot
from harness.spec.sections import Tune

if TYPE_CHECKING:
    from rich.console import Console

MASK, FILE = "keep.safetensors", "tune.json"


def section(given: Mapping[str, Any], data: str, task: str | None = None, length: int | None = None) -> dict[str, Any]:
    """Returns the resolved `tune` section.

    Args:
        given: Its settings by name; None and empty ones are left to their defaults.
        data: A data choice, or a JSON Lines file.
        task: How rows become examples; by default the task that reads data of this kind.
        length: Tokens of an example, for a task with that option; for text 2048 by default.

    Raises:
        Problem: A setting is wrong, as in an experiment; or it needs the section that the model was pruned by.
    """
    options = oneoff.checked(Tune, given, oneoff.reads(data, task, length))
    if prunes(options):
        hint = "write an experiment: harness add experiment"
        raise Problem("this prunes too, by a prune section, which only an experiment has", hint=hint)
    return options


def command(
    model: str,
    out: Path,
    options: Mapping[str, Any],
    teacher: str | None,
    zeros: bool,
    team: Processes = ALONE,
) -> None:
    """Checks what can be checked, tunes, and prints what came of it.

    Args:
        model: The sparse model: a folder, or a name.
        out: The folder to write.
        options: A resolved `tune` section.
        teacher: The dense model, for a loss that learns from one.
        zeros: Whether the masks are the model's exact zeros.
        team: How many processes train together, and how.

    Raises:
        Problem: Something is wrong; nothing has been written then.
    """
    from harness import show
    from harness.device import device

    folder = oneoff.check_folder(out)
    parents = sources(model, options, teacher, zeros)
    device()
    if teacher is not None and _is_sparse(parents["teacher"]):
        text = f"note: the teacher {teacher} has a mask beside it: what is learned from is a pruned model, no dense one"
        show.console.print(text, markup=False, highlight=False, soft_wrap=True)
    report = tune(parents, folder, options, zeros, show.console, team)
    sparsity = report["sparsity"]
    lines = {
        "steps": f"{report['steps']}, {report['step_seconds']:.3g} s each",
        "trained": f"{report['trained_parameters']:,} of {report['parameters']:,} parameters",
        "zeros": f"{sparsity['before']:.2%} of the masked layers before, {sparsity['after']:.2%} after",
        "merged": f"{sparsity['merged']:.2%}",
        "peak memory": f"{show.memory(report['peak_memory_bytes'])}, {show.memory(report['held_memory_bytes'])} before",
        "written": str(folder),
    }
    oneoff.tell(lines, show.console)


def sources(model: str, options: Mapping[str, Any], teacher: str | None, zeros: bool) -> dict[str, Source]:
    """Finds the model, its teacher and the data.

    Returns:
        The models by role.

    Raises:
        Problem: One of them cannot be had, or they cannot go together; or the model has no mask.
    """
    if options["teacher"] and teacher is None:
        raise Problem(f"the loss {options['loss']} learns from a teacher, and none is given", hint="--teacher MODEL")
    if teacher is not None and not options["teacher"]:
        raise Problem(f"the loss {options['loss']} looks at no teacher", hint="leave --teacher out")
    origins = Origins()
    named = {"model": model, **({"teacher": teacher} if teacher else {})}
    oneoff.refuse_tiny(*named.values())
    found = {role: origins.model(name) for role, name in named.items()}
    origins.data(options)
    origins.fits({"model": model, "prune": None, "tune": options, "evaluate": {}})
    origins.check()
    if not zeros and not _is_sparse(found["model"]):
        hint = "--mask-from-zeros takes its exact zeros"
        raise Problem("there is no mask beside this model", where=model, hint=hint)
    return found


def tune(
    parents: Mapping[str, Source],
    folder: Path,
    options: Mapping[str, Any],
    zeros: bool,
    console: Console,
    team: Processes = ALONE,
) -> dict[str, Any]:
    """Tunes a model into a folder that is not there yet, or empty; returns what `tune.json` says.

    What a checkpoint of the same work is beside the folder is not computed again.

    Args:
        parents: The sparse model, and the teacher where there is one.
        folder: The result: model and processor as transformers reads them, mask, `curve.jsonl`, `tune.json`.
        options: A resolved `tune` section.
        zeros: Whether the masks are the model's exact zeros.
        console: Where the progress is shown, if it is a terminal.
        team: How many processes train together, and how.
    """
    data = Origins().data(options) or {}
    follows = {role: source.identity for role, source in {**parents, **data}.items()}
    settings = {"version": version("tune"), "options": options, "read": follows, "mask_from_zeros": zeros}
    with oneoff.going_on(folder, settings, console) as (result, scratch):
        read: dict[str, Source | Path] = dict(parents)
        if zeros:
            read["mask"] = _mask(parents["model"], scratch / "mask")
        steps = oneoff.work("tune", options, read, result, scratch, team)
        oneoff.follow(steps, f"tuning {parents['model'].name}", console)
        return json.loads((result / FILE).read_text(encoding="utf8"))


def _is_sparse(source: Source) -> bool:
    folder = snapshot(source)
    return folder is not None and (folder / MASK).is_file()


def _mask(source: Source, folder: Path) -> Path:
    """Writes the masks of a model's exact zeros into a folder.

    Raises:
        Problem: No layer has enough of them.
    """
    from harness import models
    from harness.pruning import keep

    model = models.load(source)
    keeps = keep.from_zeros({each.name: each.module.weight for block in models.blocks(model) for each in block.linears})
    if not keeps:
        what = f"no layer of this model has {keep.LEAST_ZEROS:.0%} zeros"
        raise Problem(what, where=source.name, hint="prune it first")
    folder.mkdir(exist_ok=True)
    keep.save(folder, keeps)
    return folder
