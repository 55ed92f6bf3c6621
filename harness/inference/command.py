"""Engines measured on one model outside any experiment (`harness measure`): a sweep of batches, prompts and sparsities.

Where sparsities are asked for, the model's smallest weights are set to zero first, by magnitude within each row: its
answers are lost, its speed is that of a model so sparse. From two on, they give the sparsity at which an engine breaks
even with the baseline, one line for every batch and prompt.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from harness import export, models, oneoff, rooms
from harness.inference import roofline, swap
from harness.inference.baseline import baseline
from harness.inference.left_out import left_out, sentence
from harness.inference.loading import loading
from harness.inference.measure import Setting, device_of, measure
from harness.inference.report import loaded, table
from harness.pruning.patterns import unstructured
from harness.runs import files
from harness.runs.job import Progress
from harness.runs.origins import Origins
from harness.sources import Source, model_source
from harness.stages._load import verified
from harness.tracking.environment import environment

FILE, TABLE = "measure.json", "measure.md"


@dataclass(frozen=True)
class Sweep:
    """What is measured: every combination of batch, prompt and sparsity, with all engines.

    Attributes:
        engines: Choices of the room `engine`.
        setting: What is generated, but for batch and prompt.
        batches: Rows at once.
        prompts: Tokens read before the first is generated.
        sparsities: Fractions of zeros that the prunable linears are given; empty for the model as it is.
        against: The engine that speed-ups are over; None for the `baseline` of the engines.
    """

    engines: Sequence[str]
    setting: Setting
    batches: Sequence[int] = (1,)
    prompts: Sequence[int] = (128,)
    sparsities: Sequence[float] = ()
    against: str | None = None


def command(model: str, out: Path, sweep: Sweep) -> None:
    """Checks everything, measures, writes `measure.json` and `measure.md`, and prints the tables.

    Raises:
        Problem: Something is wrong; nothing has been written then.
    """
    from harness import show

    folder = oneoff.check_folder(out)
    against = baseline(sweep.engines) if sweep.against is None else sweep.against
    device_of([str(rooms.resolve("engine", text)) for text in (against, *sweep.engines)])
    source = found(model)
    with oneoff.becoming(folder) as (result, scratch):
        dense, processor = weights(source), models.load_processor(source)
        reports: list[dict[str, Any]] = []
        oneoff.follow(sweeping(dense, sweep, reports), f"measuring {source.name}", show.console)
        said = {
            "model": source.identity,
            "left_out": left_out(source),
            "measurements": reports,
            "break_even": break_even(reports),
            "forms": loading(dense, processor, forms(sweep.engines), scratch),
            "environment": environment(),
        }
        text = tables(said)
        files.replace(result / FILE, json.dumps(said, indent=1, ensure_ascii=False) + "\n")
        files.replace(result / TABLE, text)
    show.console.print(text, markup=False, highlight=False, soft_wrap=True)


def found(model: str) -> Source:
    """Returns where a model comes from.

    Raises:
        Problem: It cannot be had or used.
    """
    if export.is_packed(Path(model).expanduser()):
        return model_source(model)
    origins = Origins()
    source = origins.model(model)
    origins.check()
    return source


def weights(source: Source) -> nn.Module:
    """Returns a model's dense float32 weights; those of a packed folder are expanded."""
    return export.load(source.path, dense=True) if export.is_packed(source.path) else swap.bare(verified(source))


def sweeping(model: nn.Module, sweep: Sweep, reports: list[dict[str, Any]]) -> Iterator[Progress]:
    """Measures every combination, adding its report, with its sparsity, to `reports`."""
    combinations = list(itertools.product(sweep.sparsities or (None,), sweep.batches, sweep.prompts))
    for turn, (sparsity, batch, prompt) in enumerate(combinations):
        zeroed = model if sparsity is None else sparser(model, sparsity)
        setting = Setting(**{**vars(sweep.setting), "batch": batch, "prompt": prompt})
        steps = measure(zeroed, sweep.engines, setting, sweep.against)
        while True:
            try:
                step = next(steps)
            except StopIteration as ended:
                reports.append({"sparsity": sparsity, **ended.value})
                break
            yield Progress(turn * step.total + step.done, len(combinations) * step.total, step.values, step.unit)


def sparser(model: nn.Module, sparsity: float) -> nn.Module:
    """Returns a copy whose prunable linears have this fraction of zeros, the smallest weights of every row."""
    made = copy.deepcopy(model)
    for name in swap.prunable(made):
        weight = made.get_submodule(name).weight.detach()
        weight.masked_fill_(~unstructured.choose(weight.abs(), sparsity, group="row"), 0)
    return made


def break_even(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns from which sparsity on an engine is no slower, for each, batch and prompt with two sparsities or more."""
    points: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    for report in reports:
        for name, engine in report["engines"].items():
            if name != report["against"] and report["sparsity"] is not None:
                key = (name, report["setting"]["batch"], report["setting"]["prompt"])
                points.setdefault(key, []).append((report["sparsity"], engine["speedup"]["median"]))
    return [
        {"engine": name, "batch": batch, "prompt": prompt, "sparsity": roofline.break_even(*zip(*each, strict=True))}
        for (name, batch, prompt), each in points.items()
        if len(each) > 1
    ]


def forms(engines: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the forms on disk that go with engines, format and precision: the plain one, and the packed ones."""
    chosen = [rooms.resolve("engine", text) for text in engines]
    named = [(each.options["format"], each.options["precision"]) for each in chosen if each.name == "packed"]
    return list(dict.fromkeys([(export.PLAIN, "fp32"), *named]))


def tables(said: Mapping[str, Any]) -> str:
    """Returns a sweep as Markdown."""
    parts = [f"# {said['model'].partition('@')[0]}\n"]
    if said["left_out"]:
        parts.append(f"{sentence(said['left_out'])}\n")
    for report in said["measurements"]:
        if report["sparsity"] is not None:
            parts.append(f"## {report['sparsity']:.0%} of the weights of the prunable layers are zero\n")
        parts.append(table(report))
    if said["break_even"]:
        lines = [
            f"- {each['engine']}, batch {each['batch']}, prompt {each['prompt']}: "
            + ("slower at all sparsities" if each["sparsity"] is None else f"{each['sparsity']:.0%}")
            for each in said["break_even"]
        ]
        parts.append("\n".join(["Break-even, the sparsity from which on it is no slower:", "", *lines]) + "\n")
    if any(report["sparsity"] is not None for report in said["measurements"]):
        parts.append("What follows is of the model as it is, before any of its weights were set to zero.\n")
    return "\n".join([*parts, loaded(said["forms"])])
