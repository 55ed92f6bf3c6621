"""What a fine-tuning will take, about: seconds and each process's peak memory, from shapes alone; no torch, no weights.

    memory  = the process + weights, masks, teacher (4 bytes a weight) + gradients (4) and AdamW's moments (8) of what
              is trained + what a micro-batch leaves for the backward: every block's inputs and outputs, or with
              `recompute` its input alone and one block's all; and the logits three times; or, where a ramp prunes
              between steps, a second weight of every layer (4) and the walk, in place of gradients
    seconds = 6 operations a weight and token (4 where weights are frozen, 2 more for a teacher, 2 to compute again)
              / speed of a matrix product + bytes of the update / speed of memory + start, reading, writing

7 billion weights in fp32 need 28 GB each for weights, gradients and each moment: 112 GB before the first activation.
With FSDP each process holds its share of all that, and one block whole, in a pruning too; on a CPU, and where something
is computed with the model before it is shared out, at first the whole model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import rooms
from harness.problems import Problem
from harness.runs import shapes
from harness.runs.decides import begins_with_gradients
from harness.runs.estimates import pruning
from harness.runs.estimates.figures import DISK, PROCESS, START, TOKENS, Estimate, on_gpu
from harness.runs.processes import ALONE, Processes
from harness.runs.speed import speed
from harness.sources import Source, snapshot

if TYPE_CHECKING:
    from harness.runs.shapes import Shapes

TRAIN = 0.35
"""The share of a matrix product's speed that forward and backward reach."""
UPDATE = 2e9
"""Bytes a second that AdamW and the masks go through, 40 for each trained weight."""
WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Trained:
    """What a method trains: numbers besides the weights, whether also the weights, and its optimiser's moments."""

    more: int
    weights: bool
    moments: int = 2


def estimate(options: Mapping[str, Any], source: Source, processes: Processes = ALONE) -> Estimate:
    """Estimates a fine-tuning.

    Args:
        options: A resolved `prepare` or `tune` section.
        source: The model whose shapes it has.
        processes: How many train together, and how.
    """
    folder = snapshot(source)
    if folder is None:
        return Estimate(unknown="the model is on the hub, and its shapes are not here")
    try:
        model = shapes.read(folder)
        ramp = pruning.ramp(options["prune"], folder) if options.get("ramp") else None
    except Problem as problem:
        return Estimate(unknown=problem.what)
    memory, disk = _memory(options, model, processes, ramp), _disk(options, model)
    if on_gpu():
        return Estimate(None, memory, unknown="on a GPU it depends on which", disk=disk)
    steps = _steps(options)
    if steps is None:
        return Estimate(None, memory, unknown="how many steps its epochs are, its data will tell")
    return Estimate(_seconds(options, model, steps), memory, disk=disk)


def trained(options: Mapping[str, Any], model: Shapes) -> Trained:
    """Returns what the method of a section trains; a section without one trains every weight."""
    if "method" not in options:
        return Trained(0, True)
    choice = rooms.parse(options["method"])
    constants = rooms.ROOMS["method"].method(choice.name).constants
    if not constants.get("FREEZES"):
        return Trained(0, True)
    rank = choice.options.get("rank") or choice.options.get("blocks")
    density = choice.options.get("density")
    sides = sum(layer.out + layer.columns for layer in model.layers)
    weights = sum(layer.out * layer.columns for layer in model.layers)
    more = rank * sides if rank else math.ceil((density or 0) * weights)
    return Trained(more, False, 3 if constants.get("AGED") else 2)


def _memory(options: Mapping[str, Any], model: Shapes, processes: Processes, ramp: pruning.Ramp | None) -> float:
    what, prunable = trained(options, model), sum(layer.out * layer.columns for layer in model.layers)
    moving = what.more + (model.parameters if what.weights else 0)
    held = 4 * model.parameters * (1 + _taught(options)) + 4 * what.more + 4 * moving * (1 + what.moments)
    largest = max(sum(layer.out * layer.columns for layer in layers) for layers in model.blocks.values())
    own, gradients, begun = 4 * prunable, 4 * moving, 0.0
    if processes.count > 1 and processes.parallel == "fsdp":
        begun = 4 * model.parameters * (1 + _taught(options)) * _begins_whole(options)
        own, gradients = own / processes.count, gradients / processes.count
        held = held / processes.count + 2 * 4 * (largest + model.parameters - prunable)
    elif processes.count > 1:
        held += 4 * moving  # DDP's buckets
    held += prunable / 8 if "method" in options else 0  # masks, in bits
    held += prunable * WIDTH[options["precision"]] if options["precision"] != "fp32" else 0  # autocast keeps its copies
    if ramp and not on_gpu() and "allot" in rooms.ROOMS["method"].method(rooms.parse(options["method"]).name).verbs:
        held += ramp.outputs  # the dense model's, which wait on the CPU
    update = gradients if on_gpu() else 0  # as much again: AdamW goes through all tensors at once there
    between = own + ramp.walk - gradients if ramp else 0
    most = max(update, between, _activations(options, model, processes.count))
    return (0 if on_gpu() else PROCESS) + max(begun, held + most)


def _begins_whole(options: Mapping[str, Any]) -> bool:
    """Says whether a model is whole where it trains before it is shared out: on a CPU always; see `tuning/parts.py`."""
    if not on_gpu() or "prune" in options:
        return True
    return "method" in options and begins_with_gradients(options)


def _activations(options: Mapping[str, Any], model: Shapes, processes: int) -> float:
    """Returns the bytes that a process's share of a micro-batch leaves for its backward."""
    rows = math.ceil(options["batch_size"] / options["accumulation"] / processes)
    tokens, width = rows * _length(options), WIDTH[options["precision"]]
    hidden = _hidden(model)
    blocks = [_block(layers, hidden, width) for layers in model.blocks.values()]
    kept = max(blocks) + 4 * hidden * len(blocks) if options["recompute"] else sum(blocks)
    terms = [rooms.ROOMS["loss"].method(term.choice.name) for term in rooms.resolve_terms("loss", options["loss"])]
    states = sum(3 * 4 * hidden * len(blocks) for term in terms if term.constants.get("HIDDEN"))
    logits = 3 * 4 * _vocabulary(model) * (1 + _taught(options))
    return tokens * (kept + states + logits)


def _block(layers: list[shapes.Matrix], hidden: int, width: int) -> float:
    """Returns the bytes of a token in a block: distinct inputs and outputs of its layers, and those of two norms."""
    inputs = sum({layer.reads: layer.columns for layer in layers}.values())
    return width * (inputs + sum(layer.out for layer in layers)) + 4 * 4 * hidden


def _seconds(options: Mapping[str, Any], model: Shapes, steps: int) -> float:
    what, length = trained(options, model), _length(options)
    passes = (6 if what.weights else 4) + 2 * _taught(options) + 2 * options["recompute"]
    tokens = steps * options["batch_size"] * length
    work = passes * tokens * (model.parameters + 2 * length * _hidden(model) * len(model.blocks))
    moving = what.more + (model.parameters if what.weights else 0)
    files = (2 + _taught(options)) * 4 * model.parameters + model.stored
    return START + files / DISK + work / TRAIN / speed().product + steps * 40 * moving / UPDATE


def _disk(options: Mapping[str, Any], model: Shapes) -> int:
    """Returns the bytes of the tokens that a run packs into a file; 0 where it packs none, or its epochs decide."""
    packs = rooms.parse(options["task"]).options.get("cut") == "packed"
    tokens = (_steps(options) or 0) * options["batch_size"] * _length(options)
    return packs * tokens * (2 if _vocabulary(model) <= 2**16 else 4)


def _steps(options: Mapping[str, Any]) -> int | None:
    if options["steps"]:
        return options["steps"]
    if options.get("tokens"):
        return math.ceil(options["tokens"] / _length(options) / options["batch_size"])
    whole = rooms.parse(options["task"]).name != "language_modelling"  # one row, one example
    if whole and options["rows"]:
        return max(1, round(options["epochs"] * -(-options["rows"] // options["batch_size"])))
    return None


def _length(options: Mapping[str, Any]) -> int:
    task = rooms.parse(options["task"])
    return task.options.get("length") or TOKENS.get(task.name, 512)


def _taught(options: Mapping[str, Any]) -> bool:
    return bool(options.get("teacher"))


def _hidden(model: Shapes) -> int:
    found = model.config.get("hidden_size") or model.config.get("d_model")
    return int(found or min(layer.columns for layer in model.layers))


def _vocabulary(model: Shapes) -> int:
    return int(model.config.get("vocab_size") or 0)
