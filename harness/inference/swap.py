"""Linears of a model replaced by other modules, those that read one and the same input joined into one.

    q, k, v = W_q x, W_k x, W_v x   ->   (q, k, v) = split([W_q; W_k; W_v] x)

A decode step reads little data per layer, so three products of a third the size cost more than one. Which linears
share an input is seen, not known: the model is run once on a few tokens, and those of one parent module that were
handed the very same tensor belong together (q, k, v; gate and up; the keys and values of a cross-attention).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from harness import models
from harness.inference.greedy import Decoder
from harness.inference.prompts import prompts
from harness.problems import Problem


def prunable(model: nn.Module) -> list[str]:
    """Returns the full names of a model's prunable linears, in execution order."""
    return [linear.name for block in models.blocks(model) for linear in block.linears]


def bare(model: nn.Module) -> nn.Module:
    """Takes from a model's linears what rounds their inputs where it was quantised: engines have their own ways."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module._forward_pre_hooks.clear()
    return model


def head(model: nn.Module) -> str | None:
    """Returns the name of the output layer over the vocabulary; None where there is no linear one."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return next((name for name, module in model.named_modules() if module is output), None) if output else None


def put(model: nn.Module, name: str, new: nn.Module | Tensor) -> None:
    """Puts a module, a parameter or a buffer in the place of the one of this name."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, new)


@torch.inference_mode()
def groups(model: nn.Module, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns linears by the input they share: each name once, alone or with those of its parent that read the same.

    Args:
        model: A model of transformers; it is run on two tokens, or on one window of sound.
        names: Full names of linears.
    """
    seen: dict[tuple[str, int], list[str]] = {}
    held = []  # as long as the inputs live, no two have one id

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            held.append(given[0])
            seen.setdefault((name.rpartition(".")[0], id(given[0])), []).append(name)

        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    try:
        Decoder(model, prompts(model, 1, 2, seed=0)).first()
    finally:
        for each in hooks:
            each.remove()
    together = [tuple(dict.fromkeys(group)) for group in seen.values()]
    called = {name for group in together for name in group}
    return [*together, *((name,) for name in names if name not in called)]


def swap(model: nn.Module, groups: Sequence[Sequence[str]], make: Callable[[Tensor, Tensor | None], nn.Module]) -> None:
    """Replaces linears in place.

    Args:
        model: The model.
        groups: Names of linears; those of a group read one input and become one layer.
        make: From a weight [out, in] and a bias [out] or None to the module that multiplies by it.

    Raises:
        Problem: That of `make`; it names the layers.
    """
    for group in groups:
        linears = [model.get_submodule(name) for name in group]
        weight, bias = joined(linears)
        try:
            layer = weightless(make(weight, bias))
        except Problem as problem:
            raise problem.at(", ".join(group)) from problem
        if len(group) == 1:
            put(model, group[0], layer)
            continue
        shared = Joined(layer, [linear.out_features for linear in linears])
        for index, name in enumerate(group):
            put(model, name, weightless(Part(shared, index)))


def weightless(layer: nn.Module) -> nn.Module:
    """Gives a layer the attribute `weight`, None, where it has none: T5 asks for the type of one."""
    if not hasattr(layer, "weight"):
        layer.register_parameter("weight", None)
    return layer


def joined(linears: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Returns the weights of linears one below the other, and their biases, 0 for those that have none."""
    weight = (
        torch.cat([linear.weight.detach() for linear in linears]) if len(linears) > 1 else linears[0].weight.detach()
    )
    if all(linear.bias is None for linear in linears):
        return weight, None
    own = [linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in linears]
    return weight, torch.cat([each.detach() for each in own])


class Joined(nn.Module):
    """One product for all linears that read an input; it is kept until each of them has had its part.

    The first of them always computes it anew, and so does one that is asked with another tensor, or twice: what is
    returned never depends on who asked before. Each thread has parts of its own.
    """

    def __init__(self, layer: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.layer, self.widths = layer, list(widths)
        self.held: dict[int, tuple[Tensor, dict[int, Tensor]]] = {}

    def part(self, index: int, x: Tensor) -> Tensor:
        """Returns the outputs [..., widths[index]] of one of the linears for the input [..., in]."""
        thread = threading.get_ident()
        of, parts = self.held.pop(thread, (None, {}))
        if index == 0 or x is not of or index not in parts:
            parts = dict(enumerate(self.layer(x).split(self.widths, -1)))
        found = parts.pop(index)
        if parts:
            self.held[thread] = x, parts
        return found


class Part(nn.Module):
    """One of several linears that are computed together."""

    def __init__(self, joined: Joined, index: int) -> None:
        super().__init__()
        self.joined, self.index = joined, index
        self.out_features = joined.widths[index]

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., out] for [..., in]."""
        return self.joined.part(self.index, x)
