"""Engines measured on one model outside any experiment (`harness measure`): a sweep of batches, prompts and sparsities.

Where sparsities are asked for, the model's smallest weights are set to zero first, by magnitude within each row: its
answers are lost, its speed and its size are those of a model so sparse. From two on, they give the sparsity at which an
engine breaks even with what it is compared with, and with its own dense weights, one line for every batch and prompt.
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

from harness import export, exported, models, oneoff, rooms
from harness.inference import roofline, swap
from harness.inference.baseline import baseline, own_dense
from harness.inference.left_out import left_out, sentence
from harness.inference.loading import form_of, loading
from harness.inference.measure import Setting, device_of, measure
from harness.inference.prompts import hears
from harness.inference.report import loaded, table
from harness.inference.weights import dense_weights, found
from harness.problems import Problem
from harness.pruning.patterns import unstructured
from harness.runs import files
from harness.runs.job import Progress
from harness.tracking.environment import environment

FILE, TABLE = "measure.json", "measure.md"
PROMPTS = (128,)


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
    prompts: Sequence[int] = PROMPTS
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
        dense, processor = dense_weights(source), models.load_processor(source)
        check_prompts(dense, sweep)
        reports: list[dict[str, Any]] = []
        oneoff.follow(sweeping(dense, sweep, reports), f"measuring {source.name}", show.console)
        said = {
            "model": source.identity,
            "left_out": left_out(source),
            "measurements": reports,
            "break_even": break_even(reports),
            "forms": [
                {"sparsity": sparsity, **form}
                for sparsity in sweep.sparsities or (None,)
                for form in loading(at(dense, sparsity), processor, forms(sweep.engines), scratch)
            ],
            "environment": environment(),
        }
        text = tables(said)
        files.replace(result / FILE, json.dumps(said, indent=1, ensure_ascii=False) + "\n")
        files.replace(result / TABLE, text)
    show.console.print(text, markup=False, highlight=False, soft_wrap=True)


def sweeping(model: nn.Module, sweep: Sweep, reports: list[dict[str, Any]]) -> Iterator[Progress]:
    """Measures every combination, adding its report, with its sparsity, to `reports`."""
    combinations = list(itertools.product(sweep.sparsities or (None,), sweep.batches, sweep.prompts))
    for turn, (sparsity, batch, prompt) in enumerate(combinations):
        zeroed = at(model, sparsity)
        setting = Setting(**{**vars(sweep.setting), "batch": batch, "prompt": prompt})
        steps = measure(zeroed, sweep.engines, setting, sweep.against)
        while True:
            try:
                step = next(steps)
            except StopIteration as ended:
                reports.append({"sparsity": sparsity, **ended.value})
                break
            yield Progress(turn * step.total + step.done, len(combinations) * step.total, step.values, step.unit)


def check_prompts(model: nn.Module, sweep: Sweep) -> None:
    """Makes sure that no length of a prompt is asked for of a model that hears.

    Raises:
        Problem: One is.
    """
    if hears(model) and tuple(sweep.prompts) != PROMPTS:
        what = f"{type(model).__name__} reads no prompt: it hears a window, which is always as long"
        raise Problem(what, where="prompt", hint="leave the length of the prompt out")


def at(model: nn.Module, sparsity: float | None) -> nn.Module:
    """Returns a model at a sparsity of the sweep, None for the model as it is."""
    return model if sparsity is None else sparser(model, sparsity)


def sparser(model: nn.Module, sparsity: float) -> nn.Module:
    """Returns a copy whose prunable linears have this fraction of zeros, the smallest weights of every row."""
    made = copy.deepcopy(model)
    for name in swap.prunable(made):
        weight = made.get_submodule(name).weight.detach()
        weight.masked_fill_(~unstructured.choose(weight.abs(), sparsity, group="row"), 0)
    return made


def break_even(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns from which sparsity on an engine is no slower than another, for each batch and prompt.

    An engine with formats is compared with its own dense weights too (`over` says with what); dense ones have no such
    sparsity, nor has a single point.
    """
    points: dict[tuple[str, str, int, int], list[tuple[float, float]]] = {}
    for report in reports:
        for name, engine in report["engines"].items():
            own = own_dense(name)
            if report["sparsity"] is None or "failed" in engine or name in (own, report["against"], report["torch"]):
                continue
            over = {"speedup": report["against"], "speedup_torch": report["torch"], "speedup_own": own}
            for key, other in over.items():
                if key in engine and (key == "speedup" or other != report["against"]):
                    place = (name, other, report["setting"]["batch"], report["setting"]["prompt"])
                    points.setdefault(place, []).append((report["sparsity"], engine[key]["median"]))
    return [
        {"engine": name, "over": other, "batch": batch, "prompt": prompt}
        | {"sparsity": roofline.break_even(*zip(*each, strict=True)), "least": min(each)[0]}
        for (name, other, batch, prompt), each in points.items()
        if len(each) > 1
    ]


def forms(engines: Sequence[str]) -> list[tuple[str, str, str]]:
    """Returns the forms on disk that go with engines, as `loading` takes them: the plain one first."""
    named = [each for engine in engines for each in form_of(engine)]
    return list(dict.fromkeys([(exported.PLAIN, "fp32", export.KEEP), *named]))


def tables(said: Mapping[str, Any]) -> str:
    """Returns a sweep as Markdown."""
    parts = [f"# {said['model'].partition('@')[0]}\n"]
    if said["left_out"]:
        parts.append(f"{sentence(said['left_out'])}\n")
    for sparsity in dict.fromkeys(report["sparsity"] for report in said["measurements"]):
        if sparsity is not None:
            parts.append(f"## {sparsity:.0%} of the weights of the prunable layers are zero\n")
        parts += [table(report) for report in said["measurements"] if report["sparsity"] == sparsity]
        parts.append(loaded([form for form in said["forms"] if form["sparsity"] == sparsity]))
    if said["break_even"]:
        lines = [
            f"- {each['engine']}, batch {each['batch']}, prompt {each['prompt']}, over {each['over']}: {_from(each)}"
            for each in said["break_even"]
        ]
        parts.append("\n".join(["Break-even, the sparsity from which on it is no slower:", "", *lines]) + "\n")
    return "\n".join(parts)


def _from(found: Mapping[str, Any]) -> str:
    """Returns a break-even in words: where no point is slower, it lies below what was measured."""
    if found["sparsity"] is None:
        return "slower at all sparsities"
    least = found["sparsity"] == found["least"]
    return f"{found['sparsity']:.0%}" + (", the least that was measured" if least else "")
