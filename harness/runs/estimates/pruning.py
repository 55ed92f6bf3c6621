"""What a pruning will take, about: seconds and peak memory, from shapes alone; no torch, no weights.

    seconds = operations of forward passes, Gram matrices, factorisations, compensation / speed of a matrix product
            + comparisons of the weights / speed of sorting + start, reading, writing
    memory  = the process + the larger of: weights and masks twice over (written, then read back and verified); weights,
              the gradients that a criterion asked for, and the largest of what comes one after the other:
              a backward pass: the inputs and outputs of all layers for a batch, or one sequence, and its logits thrice;
              a survey: the walk's, all Gram matrices that scores wait for, hidden states once more for RMI's kernels;
              a trial: the walk's and a second copy of the layers, then a held-out batch's logits;
              the walk: every paused pass's hidden states, one block's activations, statistics and solver's workspace

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
FIRST_ORDER, SPECTRAL, STATISTICS, SURVEYED = (
    {"gradient", "gradient_norm"},
    {"alphapruning"},
    {"gram", "norm", "total", "length", "variance"},
    {"norms", "scores", "kernels"},
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
    passed: int  # distinct inputs and outputs of all layers, the skipped ones too: what a backward pass keeps
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


@dataclass(frozen=True)
class Ramp:
    """What a walk between two steps of training takes.

    Attributes:
        walk: Its bytes beside the model and its masks.
        outputs: Bytes of the outputs of all blocks on the calibration tokens, float32.
    """

    walk: float
    outputs: float


def ramp(options: Mapping[str, Any], folder: Path) -> Ramp:
    """Estimates the walks of a ramp.

    Args:
        options: A resolved `prune` section.
        folder: The dense model's.

    Raises:
        Problem: The section skips every layer.
    """
    model, sums, needs = _shapes(folder), _sums(folder, tuple(options["skip"])), _needs(options)
    tokens, length = _tokens(options) if needs - WITHOUT_DATA else (0, 0)
    return Ramp(_turn(options, model, sums, tokens, length, needs), 4 * tokens * sums.hidden * sums.blocks)


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
    walks = bool(needs & STATISTICS) + bool(needs & SURVEYED)
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
    masks = sums.weights / 8
    walking = weights + masks + _turn(options, model, sums, tokens, length, needs)
    verifying = 2 * (weights + masks) if not on_gpu() else 0
    return (0 if on_gpu() else PROCESS) + max(reading, walking, verifying)


def _turn(
    options: Mapping[str, Any], model: shapes.Shapes, sums: Sums, tokens: int, length: int, needs: set[str]
) -> float:
    """Returns the bytes of a walk, and of what comes before it, beside the model and its masks."""
    gradients = 4 * sums.weights * len(needs & FIRST_ORDER)
    phases = [_walk(options, sums, tokens, length, needs)]
    if needs & FIRST_ORDER:
        phases.append(_backward(options, model, sums, length, needs))
    if needs & SURVEYED:
        phases.append(_survey(options, sums, tokens, length, needs))
    if "judge" in needs:
        phases.append(_trial(options, model, sums, tokens, length, needs))
    return gradients + max(phases)


def _walk(options: Mapping[str, Any], sums: Sums, tokens: int, length: int, needs: set[str]) -> float:
    statistics = 4 * (sums.block_inputs2 if "gram" in needs else 0)
    solving = 4 * (4 * sums.largest_in**2 if "gram" in needs else 0) + 4 * 4 * sums.largest  # one factor is kept
    return _passes(options, sums, tokens, length) + statistics + solving


def _passes(options: Mapping[str, Any], sums: Sums, tokens: int, length: int) -> float:
    """Returns the bytes of the paused passes' hidden states and of one block's activations."""
    width = WIDTH[options["dtype"]]
    activations = options["batch_size"] * length * sums.widest * width if tokens else 0
    return tokens * sums.hidden * width + 2 * activations


def _backward(options: Mapping[str, Any], model: shapes.Shapes, sums: Sums, length: int, needs: set[str]) -> float:
    """Returns the bytes of a backward pass, of a batch for `gradient` and of one sequence for its norm."""
    width = WIDTH[options["dtype"]]
    rows = min(options["batch_size"], options["samples"]) if "gradient" in needs else 1
    norms = 3 * 4 * sums.hidden * sums.blocks  # what those of a block keep beside the layers' inputs
    logits = 3 / 2 * _logits(model, width)  # and their gradient
    return rows * length * (width * sums.passed + norms + logits) + width * sums.largest


def _survey(options: Mapping[str, Any], sums: Sums, tokens: int, length: int, needs: set[str]) -> float:
    """Returns the bytes of the walk that an allocation asks for; what waits for the scores is on the CPU."""
    kernels = 4 * tokens * sums.hidden if "kernels" in needs else 0
    scored = set(_asks("criterion", options["criterion"])) if "scores" in needs else set()
    waiting = 4 * (sums.inputs2 if "gram" in scored and not on_gpu() else 0)
    scoring = 4 * (sums.block_inputs2 + 4 * sums.largest_in**2 if "gram" in scored else 0) + 4 * 4 * sums.largest
    return _passes(options, sums, tokens, length) + kernels + waiting + scoring


def _trial(
    options: Mapping[str, Any], model: shapes.Shapes, sums: Sums, tokens: int, length: int, needs: set[str]
) -> float:
    """Returns the bytes of a trial: the layers as they were, on the CPU, and the walk, or then the held-out loss."""
    width = WIDTH[options["dtype"]]
    copy = 0 if on_gpu() else width * sums.weights
    judged = options["batch_size"] * _length(options["search_task"] or options["task"])
    return copy + max(
        _walk(options, sums, tokens, length, needs), judged * (2 * width * sums.widest + _logits(model, width))
    )


def _logits(model: shapes.Shapes, width: int) -> int:
    """Returns the bytes of a token's logits and of their logarithms in float32."""
    return (width + 4) * int(model.config.get("vocab_size") or 0)


def _tokens(options: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the calibration tokens, and those of one example; of rows of token ids, the first one's."""
    length = _length(options["task"])
    data = _parse(options["data"])
    if data.name in ("jsonl", "jsonl_pairs"):
        length = _first(Path(data.options["path"]), length)
    return options["samples"] * length, length


def _length(text: str) -> int:
    """Returns the tokens of an example of a task."""
    task = _parse(text)
    return task.options.get("length") or TOKENS.get(task.name, 512)


@functools.cache
def _first(file: Path, length: int) -> int:
    import json

    try:
        with file.expanduser().open(encoding="utf8") as lines:
            row = json.loads(next(lines))
            return len(row.get("input_ids") or row.get("source_ids") or range(length))
    except (OSError, ValueError, RuntimeError, StopIteration, AttributeError):  # told when the file is opened
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
        passed=sum({layer.reads: layer.columns for layer in model.layers}.values())
        + sum(layer.out for layer in model.layers),
        hidden=int(model.config.get("hidden_size") or model.config.get("d_model") or narrow),
        blocks=len(blocks),
    )
