"""A method on a model: its four functions applied to every pruned layer, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import BoolTensor, nn

from harness import rooms


@dataclass(frozen=True)
class Layer:
    """A pruned layer: its module, its mask [out, in] on the weight's device, and the parameters the method trains."""

    module: nn.Linear
    keep: BoolTensor
    trained: Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class Attached:
    """A method with the layers it is attached to; without layers, fine-tuning is dense."""

    method: ModuleType | None = None
    layers: Mapping[str, Layer] = field(default_factory=dict)


DENSE = Attached()


@torch.no_grad()
def attach(model: nn.Module, keeps: Mapping[str, BoolTensor], method: rooms.Choice | str) -> Attached:
    """Makes a model's pruned layers train as a method says.

    Args:
        model: The pruned model, on its device, not wrapped.
        keeps: Name of a linear layer -> its mask [out, in].
        method: A choice of the room of methods.
    """
    choice = rooms.resolve("method", method)
    prepare = rooms.bind("method", choice, "prepare")
    layers = {}
    for name, keep in keeps.items():
        module = model.get_submodule(name)
        keep = keep.to(module.weight.device)
        for part, value in prepare(module.weight, keep).items():
            getattr(module, part).copy_(value)
            layers[name] = Layer(module, keep, {part: getattr(module, part)})
    return Attached(rooms.load("method", choice.name), layers)


@torch.no_grad()
def project_gradients(attached: Attached) -> None:
    """Puts the gradients of every layer where the method allows them, before they are clipped."""
    for layer in attached.layers.values():
        gradients = {name: p.grad for name, p in layer.trained.items() if p.grad is not None}
        if gradients:
            attached.method.project(gradients, layer.keep)


@torch.no_grad()
def project_weights(attached: Attached) -> None:
    """Puts what was trained back where the method allows it, after an update."""
    for layer in attached.layers.values():
        attached.method.project({name: p.data for name, p in layer.trained.items()}, layer.keep)


@torch.no_grad()
def merge(attached: Attached) -> None:
    """Writes every layer's final weight into the model."""
    for layer in attached.layers.values():
        layer.module.weight.copy_(attached.method.merge(layer.module.weight, layer.keep, layer.trained))
