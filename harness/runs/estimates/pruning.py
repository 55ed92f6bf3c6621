"""What a pruning will take, about: seconds and peak memory, from shapes alone; no torch, no weights.

    seconds = operations of forward passes, Gram matrices, factorisations, compensation / speed of a matrix product
            + comparisons of the weights / speed of sorting + start, reading, writing
    memory  = the process + the larger of: weights and masks twice over (written, then read back and verified); weights,
              every paused pass's hidden states, one block's activations, statistics and the solver's workspace

The factors between a matrix product and each kind of work were fitted to runs on stories260K and SmolLM2-135M. They are
right to about a factor of two on a quiet machine; the speed is that of the processor, so a GPU's time stays unknown.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness import rooms
from harness.problems import Problem
from harness.runs import shapes
from harness.runs.decides import WITHOUT_DATA
from harness.runs.estimates.figures import DISK, PROCESS, START, TOKENS, Estimate, on_gpu
from harness.runs.speed import Speed, speed
from harness.sources import Source, snapshot

FORWARD, GRAM, FACTOR, COMPENSATE, SPECTRUM = 0.55, 0.5, 0.25, 0.25, 0.05
"""The share of a matrix product's speed that each work reaches."""
COLUMN = 4e-5
"""Seconds of a solver's bookkeeping for each column."""
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
FIRST_ORDER, SPECTRAL, STATISTICS = (
    {"gradient", "gradient_norm"},
    {"alphapruning"},
    {"gram", "norm", "total", "variance"},
)


@dataclass(frozen=True)
class Sums:
    """Sums over the prunable layers of a model, all that an estimate needs of its shapes."""

    weights: int  # out * in
    out_in2: int
    in3: int
    spectrum: int
    columns: int
    inputs2: int  # in^2 over distinct inputs
    block_inputs2: int  # the same of the largest block
    largest: int  # weights of the largest layer
    largest_in: int
    widest: int  # outputs of a block's layers together, the largest
    hidden: int
    blocks: int


def estimate(options: Mapping[str, Any], source: Source) -> Estimate:
    """Estimates a pruning.

    Args:
        options: A resolved `prune` section.
        source: The dense model.
    """
    folder = snapshot(source)
    if folder is None:
        return Estimate(unknown="the model is on the hub, and its shapes are not here")
    try:
        model = _shapes(folder)
        sums = _sums(folder, tuple(options["skip"]))
    except Problem as problem:
        return Estimate(unknown=problem.what)
    needs = _needs(options)
    tokens, length = _tokens(options) if needs - WITHOUT_DATA else (0, 0)
    memory = _memory(options, model, sums, tokens, length, needs)
    if on_gpu():
        return Estimate(None, memory, unknown="on a GPU it depends on which")
    return Estimate(_seconds(options, model, sums, tokens, length, needs, speed()), memory, "judge" in needs)


def _needs(options: Mapping[str, Any]) -> set[str]:
    chosen = [(kind, options[kind]) for kind in ("criterion", "solver", "refiner", "allocation") if options[kind]]
    return {need for kind, text in chosen for need in _asks(kind, text)}


@functools.cache
def _asks(kind: str, choice: str) -> tuple[str, ...]:
    return rooms.ROOMS[kind].method(rooms.parse(choice).name).needs


@functools.cache
def _turns(ramp: str, sparsity: float) -> int:
    return len(rooms.bind("ramp", ramp)(sparsity))


_parse = functools.cache(rooms.parse)


def _seconds(
    options: Mapping[str, Any],
    model: shapes.Shapes,
    sums: Sums,
    tokens: int,
    length: int,
    needs: set[str],
    speed: Speed,
) -> float:
    turns = _turns(options["ramp"], options["sparsity"])
    # In a walk every block runs twice but the last, and attention compares all positions with each other.
    block = 2 * tokens * sums.weights / sums.blocks + 4 * tokens * length * sums.hidden
    passes = (2 * sums.blocks - 1) * block
    walks = bool(needs & STATISTICS) + bool(needs & {"norms", "scores", "kernels"})
    work = walks * passes / FORWARD
    if needs & FIRST_ORDER:
        work += 6 * tokens * model.parameters / FORWARD
    if "gram" in needs:
        work += 2 * tokens * sums.inputs2 / GRAM + 4 / 3 * sums.in3 / FACTOR
    if options["solver"]:
        work += sums.out_in2 / COMPENSATE
    if _parse(options["allocation"]).name in SPECTRAL:
        work += sums.spectrum / SPECTRUM
    compared = sums.weights * (1 + ("scores" in needs) + bool(options["refiner"]))
    columns = COLUMN * sums.columns if options["solver"] else 0
    written = 3 * model.parameters * WIDTH[options["dtype"]] + model.stored
    each = work / speed.product + compared / speed.sort + columns
    return START + written / DISK + turns * each


def _memory(
    options: Mapping[str, Any], model: shapes.Shapes, sums: Sums, tokens: int, length: int, needs: set[str]
) -> float:
    width = WIDTH[options["dtype"]]
    weights = model.parameters * width
    reading = weights + model.stored
    states = tokens * sums.hidden * width
    activations = options["batch_size"] * length * sums.widest * width if tokens else 0
    statistics = 4 * (sums.block_inputs2 if "gram" in needs else 0)
    solving = 4 * (4 * sums.largest_in**2 if "gram" in needs else 0) + 4 * 4 * sums.largest  # one factor is kept
    walking = weights + sums.weights + states + 2 * activations + statistics + solving
    verifying = (2 * weights + 2 * sums.weights) if not on_gpu() else 0
    return (0 if on_gpu() else PROCESS) + max(reading, walking, verifying)


def _tokens(options: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the calibration tokens, and those of one example; of rows of token ids, the first one's."""
    task = _parse(options["task"])
    length = task.options.get("length") or TOKENS.get(task.name, 512)
    data = _parse(options["data"])
    if data.name == "jsonl":
        length = _first(Path(data.options["path"]), length)
    return options["samples"] * length, length


@functools.cache
def _first(file: Path, length: int) -> int:
    import json

    try:
        with file.expanduser().open(encoding="utf8") as lines:
            return len(json.loads(next(lines)).get("input_ids") or range(length))
    except (OSError, ValueError, StopIteration, AttributeError):  # told when the file is opened
        return length


@functools.cache
def _shapes(folder: Path) -> shapes.Shapes:
    return shapes.read(folder)


@functools.cache
def _sums(folder: Path, skip: Sequence[str]) -> Sums:
    model = _shapes(folder)
    pruned = [layer for layer in model.layers if not any(fnmatchcase(layer.name, glob) for glob in skip)]
    if not pruned:
        raise Problem("it has no layer to prune")
    blocks = {}
    for layer in pruned:
        blocks.setdefault(layer.block, []).append(layer)
    distinct = {layer.reads: layer.columns for layer in pruned}
    narrow = min(layer.columns for layer in pruned)
    return Sums(
        weights=sum(layer.out * layer.columns for layer in pruned),
        out_in2=sum(layer.out * layer.columns**2 for layer in pruned),
        in3=sum(layer.columns**3 for layer in pruned),
        spectrum=sum(min(e.out, e.columns) ** 2 * max(e.out, e.columns) for e in pruned),
        columns=sum(layer.columns for layer in pruned),
        inputs2=sum(columns**2 for columns in distinct.values()),
        block_inputs2=max(
            sum(columns**2 for columns in {e.reads: e.columns for e in layers}.values()) for layers in blocks.values()
        ),
        largest=max(layer.out * layer.columns for layer in pruned),
        largest_in=max(layer.columns for layer in pruned),
        widest=max(sum(layer.out for layer in layers) for layers in blocks.values()),
        hidden=int(model.config.get("hidden_size") or model.config.get("d_model") or narrow),
        blocks=len(blocks),
    )
