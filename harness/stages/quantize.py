"""The quantisation stage: smooth the inputs, round the weights, write a model that lies on its grid.

Writes the model as transformers reads it, its weights in float32 but exactly those that codes and scales give, its
mask where it was pruned, `quantize.safetensors` (codes, scales, how each layer's inputs are rounded), `quantize.json`.
Plain transformers loads the weight-only result; the harness rounds the inputs too where the folder says so (`_load`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness import models
from harness.device import device
from harness.models import Block
from harness.problems import Problem
from harness.pruning import keep
from harness.quantization import codes, whole
from harness.quantization.activations import Dynamic, Input, Static
from harness.quantization.inputs import Seen, observe
from harness.quantization.smoothquant import smooth
from harness.runs.decides import CALIBRATION, calibrates_quantisation
from harness.runs.job import Job, Progress
from harness.sources import Source
from harness.stages._load import verified, verify_written
from harness.stages._pruner import calibration

VERSION = 1
FILE = "quantize.json"
METHOD = ("rounding", "bits", "group", "symmetric", "smooth", "activations", "embeddings", "skip")


def run(job: Job) -> Iterator[Progress]:
    """Quantises `job.parents["model"]` into `job.folder`, reporting after every block."""
    options, source = job.options, job.parents["model"]
    keeps = _mask(source)
    model, processor = verified(source).to(device()), models.load_processor(source)
    every = models.blocks(model)
    blocks = whole.chosen(every, options["skip"])
    way = whole.how(*(options[name] for name in ("rounding", "bits", "symmetric", "group")))
    batches = _calibration(options, model, processor) if calibrates_quantisation(options) else []
    inputs, smoothed = _inputs(options, model, every, blocks, batches)
    layers, rows = {}, {}
    of_all = whole.masks(blocks, keeps or {})
    for done, (found, said) in enumerate(whole.quantise_model(model, blocks, batches, of_all, way), 1):
        layers.update({name: replace(layer, input=inputs.get(name)) for name, layer in found.items()})
        rows.update(said)
        yield Progress(done, len(blocks), {"error": _error(rows)}, "block")
    if options["embeddings"]:
        layers |= whole.quantise_embedding(model)
    models.save(model.cpu(), processor, job.folder)
    codes.save(job.folder, layers)
    codes.verify(model, codes.load(job.folder))
    if keeps is not None:
        keep.save(job.folder, keeps)
        verify_written(job.folder, keeps)
    report = {
        "method": {name: options[name] for name in METHOD},
        "calibration": {name: options[name] for name in CALIBRATION} if batches else None,
        "overall": _overall(model, layers, rows),
        "smoothed": smoothed,
        "layers": rows,
    }
    (job.folder / FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf8")


def _mask(source: Path | Source) -> dict[str, Tensor] | None:
    """Returns the masks that lie beside a model, None where none do.

    Raises:
        Problem: The model is quantised already.
    """
    folder = source.path if isinstance(source, Source) else source
    if folder is None:
        return None
    if (folder / codes.FILE).is_file():
        raise Problem("this model is quantised already", where=str(folder), hint="quantise the model it was made from")
    return keep.load(folder) if (folder / keep.FILE).is_file() else None


def _calibration(options: Mapping[str, Any], model: nn.Module, processor: Any) -> list[dict[str, Tensor]]:
    try:
        return calibration(options, model, processor)
    except Problem as problem:
        raise problem.at(problem.where and problem.where.replace("prune.", "quantize.")) from problem


def _inputs(
    options: Mapping[str, Any],
    model: nn.Module,
    every: Sequence[Block],
    blocks: Sequence[Block],
    batches: Sequence[Mapping[str, Tensor]],
) -> tuple[dict[str, Input], dict[str, list[float]]]:
    """Smooths the model and returns how each layer's inputs are rounded, and the range of s by norm."""
    quantised = [linear for block in blocks for linear in block.linears]
    kind, folded, seen = options["activations"], {}, {}
    if options["smooth"] is not None or kind == "static":
        seen = observe(model, every, batches)
    if options["smooth"] is not None:
        folded = smooth(model, every, seen, options["smooth"], quantised, batches[0])
    if kind == "static":
        inputs = {linear.name: _static(seen[linear.name], folded) for linear in quantised}
    else:
        inputs = {linear.name: Dynamic() for linear in quantised} if kind == "dynamic" else {}
    return inputs, {norm: [float(s.min()), float(s.max())] for norm, s in folded.items()}


def _static(seen: Seen, folded: Mapping[str, Tensor]) -> Static:
    """Returns the grid over the range of a layer's inputs, divided by what its norm was smoothed with."""
    s = folded.get(seen.norm, 1)
    return Static.over(float((seen.low / s).min()), float((seen.high / s).max()))


def _error(rows: Mapping[str, Mapping[str, Any]]) -> float:
    """Returns the mean over the layers' weights of the relative error."""
    return sum(row["error"] * row["size"] for row in rows.values()) / sum(row["size"] for row in rows.values())


def _overall(
    model: nn.Module, layers: Mapping[str, codes.Coded], rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    size, pruned, zeros = (sum(row[key] for row in rows.values()) for key in ("size", "pruned", "zeros"))
    return {
        "layers": len(rows),
        "weights": size,
        "pruned": pruned / size,
        "zeros": zeros / size,
        "error": _error(rows),
        "quantised_weights": sum(layer.codes.numel() for layer in layers.values()),
        "of_all_weights": sum(layer.codes.numel() for layer in layers.values()) / model.num_parameters(),
        "bytes": sum(layer.bytes for layer in layers.values()),
    }
