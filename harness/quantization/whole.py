"""Quantising a whole model: which layers, the walk, each layer rounded on what is already quantised before it.

The inputs on which GPTQ rounds a block come from blocks whose weights are quantised; they are not rounded themselves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from harness.models import Block, Linear
from harness.problems import Problem
from harness.pruning.recipe import clock
from harness.pruning.statistics import STATISTICS
from harness.pruning.walk import walk
from harness.pruning.whole import without
from harness.quantization.codes import Coded
from harness.quantization.grid import spread
from harness.quantization.rounding import Rounded
from harness.quantization.rounding.rtn import round as to_nearest
from harness.rooms import ROOMS, Choice, bind, resolve

EMBEDDING_BITS = 8


@dataclass(frozen=True)
class How:
    """How weights are quantised.

    Attributes:
        round: (weight, keep, grid, **statistics) -> Rounded.
        needs: The input statistics it asks for.
        bits: Bits of a code.
        symmetric: Whether grids lie evenly about 0.
        group: Inputs that share a grid; None for a whole row.
    """

    round: Callable[..., Rounded]
    needs: tuple[str, ...]
    bits: int
    symmetric: bool
    group: int | None


def how(rounding: str | Choice, bits: int, symmetric: bool = True, group: int | None = None) -> How:
    """Returns how weights are quantised.

    Raises:
        Problem: The rounding or one of its options is unknown, or it needs what nothing provides.
    """
    choice = resolve("rounding", rounding)
    source = ROOMS["rounding"].method(choice.name)
    needs = tuple(need for need in source.needs if need not in ("weight", "keep", "grid"))
    if strange := [need for need in needs if need not in STATISTICS]:
        what = f"rounding {choice.name!r} needs {strange[0]!r}, which nothing provides"
        raise Problem(what, where=f"{source.path}:{source.line}", hint=f"there is: {', '.join(STATISTICS)}")
    return How(bind("rounding", choice), needs, bits, symmetric, group)


def chosen(blocks: Sequence[Block], skip: Sequence[str]) -> list[Block]:
    """Returns the blocks with those linears only whose name matches none of the globs in `skip`.

    Raises:
        Problem: A glob matches no layer, or together they match all.
    """
    names = [linear.name for block in blocks for linear in block.linears]
    if all(any(fnmatchcase(name, glob) for glob in skip) for name in names):
        raise Problem("every layer is skipped: there is nothing to quantise", where="quantize.skip")
    try:
        return without(blocks, skip)
    except Problem as problem:
        raise problem.at("quantize.skip") from problem


def masks(blocks: Sequence[Block], known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the mask of every linear, on the CPU: the known one, else which weights are not zero."""
    return {
        linear.name: known[linear.name] if linear.name in known else (linear.module.weight.detach() != 0).cpu()
        for block in blocks
        for linear in block.linears
    }


def quantise_model(
    model: nn.Module,
    blocks: Sequence[Block],
    batches: Sequence[Mapping[str, Tensor]],
    keeps: Mapping[str, Tensor],
    way: How,
) -> Iterator[tuple[dict[str, Coded], dict[str, dict[str, Any]]]]:
    """Quantises a model's weights in place, yielding after every block its layers and their rows of `quantize.json`.

    Args:
        model: The model, on its device.
        blocks: Its blocks, each with the linears that are quantised.
        batches: Calibration batches; not looked at by a rounding that needs no statistics.
        keeps: Bool mask [out, in] of every linear.
        way: How.
    """
    with contextlib.closing(walk(model, batches, way.needs, blocks)) as steps:
        for block, inputs in steps:
            layers, rows = {}, {}
            for linear in block.linears:
                given = inputs.get(linear.name, {})
                layers[linear.name], rows[linear.name] = quantise(linear, keeps[linear.name], given, way)
            yield layers, rows


@torch.no_grad()
def quantise(linear: Linear, keep: Tensor, given: Mapping[str, Tensor], way: How) -> tuple[Coded, dict[str, Any]]:
    """Quantises one layer in place and checks that what was pruned is zero.

    Returns:
        The layer's codes with their grid, on the CPU, and its row: size, pruned, zeros (which may be more, for a small
        weight can be rounded to 0), error (of the weights, relative), seconds and the rounding's facts.

    Raises:
        Problem: Something is wrong with this layer, which is named.
    """
    weight = linear.module.weight
    begin, keep = clock(weight.device), keep.to(weight.device)
    try:
        if not weight.isfinite().all():
            raise Problem("its weights are not finite")
        grid = spread(weight, way.bits, way.symmetric, way.group)
        rounded = way.round(weight.detach(), keep, grid, **{need: given[need] for need in way.needs})
        codes = rounded.codes
        if codes.shape != weight.shape or codes.dtype != torch.int8:
            raise Problem(f"its codes are {codes.dtype} {tuple(codes.shape)}")
        if codes.min() < grid.lowest or codes.max() > grid.highest:
            raise Problem(f"its codes are not of {way.bits} bits")
        if (codes != grid.zeros(codes)).masked_fill(keep, False).any():
            raise Problem("its pruned weights are not all zero")
    except Problem as problem:
        raise problem.at(linear.name) from problem
    values = grid.decode(codes).to(weight.dtype)
    error = float((values - weight).float().norm() / weight.float().norm().clamp(min=torch.finfo(torch.float32).tiny))
    weight.copy_(values)
    row = {
        "size": weight.numel(),
        "pruned": int((~keep).sum()),
        "zeros": weight.numel() - int(values.count_nonzero()),
        "error": error,
        "seconds": round(clock(weight.device) - begin, 4),
    }
    return Coded(codes.cpu(), grid.cpu()), {**row, **rounded.facts}


@torch.no_grad()
def quantise_embedding(model: nn.Module) -> dict[str, Coded]:
    """Rounds the input embedding in place, a row a token, weights only, asymmetric; a head that is tied to it too.

    Raises:
        Problem: The model has none.
    """
    module = model.get_input_embeddings()
    if not isinstance(module, nn.Embedding):
        raise Problem(f"{type(model).__name__} has no embedding of tokens", where="quantize.embeddings")
    name = next(name for name, each in model.named_modules() if each is module)
    grid = spread(module.weight, EMBEDDING_BITS, symmetric=False)
    codes = to_nearest(module.weight, torch.ones_like(module.weight, dtype=torch.bool), grid).codes
    module.weight.copy_(grid.decode(codes))
    return {name: Coded(codes.cpu(), grid.cpu())}
