"""A made-up experiment, and stages that compute nothing but write the files that the real ones write.

The curves and scores are formulas of sparsity, loss and seed; nothing here was measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.runs.execute import CellDone, Event, execute
from harness.runs.job import Job, Progress
from harness.runs.plan import Plan, plan
from harness.runs.store import Store
from harness.spec import entry as spec
from harness.spec.entry import Entry
from harness.spec.grid import Cell, cells
from harness.tracking import record

NAME = "sample/translation"
YAML = """
title: Made-up numbers for tests
paper: {id: "arXiv:0000.00000", name: sample, table: Table 1}
model: google-t5/t5-small
data: wmt14
task: translation:beams=1
prepare: {steps: 300, lr: 2e-3}
prune: {criterion: magnitude}
tune: {steps: 250, lr: 1e-3}
evaluate: {bleu: {batch_size: 64}}
grid:
  prune.sparsity: [0.5, 0.75, 0.9]
  tune.loss:
    cross_entropy: cross_entropy
    squarehead: cross_entropy + squarehead:eps=1e-9
seeds: [0, 1, 2]
scales:
  tiny: {model: tiny/t5, data: cldr_pairs}
reference:
  metric: bleu
  unit: BLEU
  cells:
    dense: {value: 25.9, read: Table 1, plus_minus: 0.2}
    0.5/squarehead: {value: 25.5, read: Table 1}
    0.75/squarehead: {value: 24.7, read: Table 1}
    0.9/squarehead: {value: null, read: the scan is cut off}
claims: [squarehead > cross_entropy]
"""
_AXIS = ("prune.sparsity: [0.5, 0.75, 0.9]", 'prune.pattern: ["2:4", "16:64"]')
PATTERNS = YAML.partition("reference:")[0].replace(*_AXIS)
"""The same with N:M patterns, and no number of the paper."""
LOST = {"": 0.0, "none": 1.0, "cross_entropy": 0.45, "squarehead": 0.25}


def entry(root: Path, scale: str = "tiny", text: str = YAML, name: str = NAME, set: tuple[str, ...] = ()) -> Entry:
    """Writes the experiment below `root` and reads it at a scale."""
    path = root / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")
    return spec.read(name, scale, root=root, set=set)


def planned(one: Entry, results: Path, labels: tuple[str, ...] = ()) -> Plan:
    """Plans the cells of an experiment, or those of some labels."""
    chosen = [cell for cell in cells(one) if not labels or cell.label in labels]
    return plan(chosen, Store(results / "artifacts"))


def run(planned: Plan, results: Path, fail: str = "") -> Iterator[Event]:
    """Executes a plan with stages that only pretend; the stage called `fail` raises."""
    return execute(planned, Store(results / "artifacts"), load_stage=lambda name: stage(name, fail))


def records(one: Entry, results: Path, labels: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Runs an experiment and returns the records of its cells."""
    done = [event for event in run(planned(one, results, labels), results) if isinstance(event, CellDone)]
    return [record.build(one, event.cell, event.folders, results) for event in done]


ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux",
    "cpu": "a processor",
    "cores": 2,
    "memory_gib": 16.0,
    "packages": {"torch": "2.13.0"},
    "git": {"sha": "0123456789abcdef", "dirty": False},
}


def plain(
    one: Entry,
    value: Callable[[Cell], float],
    *,
    higher: bool = True,
    stderr: float | None = 0.5,
    skip: Callable[[Cell], bool] = lambda cell: False,
) -> list[dict[str, Any]]:
    """Returns records of all cells with these values in the first metric of every evaluation, and no stages."""
    found = []
    for cell in cells(one):
        metrics = {
            name: {settings["metric"].partition(":")[0]: _score(value(cell), stderr, "a metric", higher)}
            for name, settings in cell.settings["evaluate"].items()
        }
        empty = {"sparsity": {}, "stages": {}, "curves": {}, "environment": ENVIRONMENT, "artifacts": {}}
        if not skip(cell):
            found.append({"schema": record.SCHEMA, **record.asked(one, cell), "metrics": metrics, **empty})
    return found


def stage(name: str, fail: str = "") -> SimpleNamespace:
    """Returns a module that stands in for `harness.stages.<name>`."""

    def broken(job: Job) -> Iterator[Progress]:
        yield Progress(1, 2, {"loss": 1.0})
        raise ZeroDivisionError("made to fail")

    return SimpleNamespace(VERSION=1, run=broken if name == fail else {"evaluate": _evaluate}.get(name, _train))


def _train(job: Job) -> Iterator[Progress]:
    """Stands in for prepare, prune and tune: what it is told of the stages before and of itself is handed on."""
    before = next((folder for folder in job.parents.values() if isinstance(folder, Path)), None)
    told = json.loads((before / "told.json").read_text()) if before else {"sparsity": 0.0, "loss": ""}
    if "sparsity" in job.options:
        told = {"sparsity": job.options["sparsity"], "loss": "none"}
        layers = {"block.0": {"asked": told["sparsity"], "zeros": round(8000 * told["sparsity"]), "size": 8000}}
        report = {"overall": {"asked": told["sparsity"], "reached": told["sparsity"]}, "layers": layers}
        (job.folder / "prune.json").write_text(json.dumps(report))
        yield Progress(1, 1, {"sparsity": told["sparsity"]}, "block")
    else:
        if told["sparsity"]:
            loss = "squarehead" if "squarehead" in job.options["loss"] else "cross_entropy"
            told = told | {"loss": loss, "seed": job.options["seed"]}
            (job.folder / "tune.json").write_text(json.dumps({"sparsity": {"after": told["sparsity"]}}))
        yield from _curve(job, told)
    (job.folder / "told.json").write_text(json.dumps(told))
    header = json.dumps({"weight": {"dtype": "F32", "shape": [100, 100], "data_offsets": [0, 40000]}}).encode()
    (job.folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(40000))


def _curve(job: Job, told: dict[str, Any]) -> Iterator[Progress]:
    lines, steps = [], job.options["steps"]
    for step in range(1, steps + 1):
        wobble = 0.08 * math.sin(step * (1 + told["sparsity"]))
        loss = 0.8 + LOST[told["loss"]] + 2.2 * math.exp(-6 * step / steps) + wobble
        values = {"loss": loss, "lr": job.options["lr"] * (1 - (step - 1) / steps)}
        lines.append(json.dumps({"step": step, **values}))
        yield Progress(step, steps, values | {"tokens_per_second": 1000.0})
    (job.folder / "curve.jsonl").write_text("\n".join(lines) + "\n")


def _evaluate(job: Job) -> Iterator[Progress]:
    told = json.loads((job.parents["model"] / "told.json").read_text())
    bleu = 31.0 - 40 * LOST[told["loss"]] * told["sparsity"] ** 4 + 0.6 * math.sin(2.0 + 3 * told.get("seed", 0))
    scores = {
        "bleu": _score(bleu, 0.7, "sacrebleu 13a"),
        "chrf": _score(bleu + 20.0, None, "chrF2"),
    }
    (job.folder / "predictions.jsonl").write_text(json.dumps({"prediction": "ja", "target": "ja"}) + "\n")
    (job.folder / "scores.json").write_text(json.dumps(scores))
    yield Progress(1, 1, unit="sample")


def _score(value: float, stderr: float | None, name: str, higher: bool = True) -> dict[str, Any]:
    protocol = f"{name} on made-up rows"
    return {"value": value, "stderr": stderr, "count": 64, "protocol": protocol, "higher_is_better": higher}
