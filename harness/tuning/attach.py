"""A method on a model: its four functions applied to every pruned layer, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import BoolTensor, Tensor, nn

from harness import rooms
from harness.problems import Problem


@dataclass(frozen=True)
class Layer:
    """A pruned layer: its module, its mask [out, in] on the weight's device, and the parameters the method trains."""

    module: nn.Linear
    keep: BoolTensor
    trained: Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class Attached:
    """A method's functions with the layers they are attached to; without layers, fine-tuning is dense."""

    project: Callable[..., None] | None = None
    merge: Callable[..., Tensor] | None = None
    layers: Mapping[str, Layer] = field(default_factory=dict)


DENSE = Attached()


@torch.no_grad()
def attach(model: nn.Module, keeps: Mapping[str, BoolTensor], method: rooms.Choice | str) -> Attached:
    """Makes a model's pruned layers train as a method says.

    What a method trains besides the weight becomes a parameter of the layer's module, so that optimiser and checkpoints
    find it there; `merge` takes it off again.

    Args:
        model: The pruned model, on its device, not wrapped.
        keeps: Name of a linear layer -> its mask [out, in].
        method: A choice of the room of methods.

    Raises:
        Problem: The method trains a tensor of a name that the layer uses, or one that no `adapt` would read.
    """
    choice = rooms.resolve("method", method)
    verbs = {verb: rooms.bind("method", choice, verb) for verb in ("prepare", "project", "merge")}
    adapt = rooms.bind("method", choice, "adapt") if hasattr(rooms.load("method", choice.name), "adapt") else None
    layers = {}
    for name, keep in keeps.items():
        module = model.get_submodule(name)
        keep = keep.to(module.weight.device)
        values = verbs["prepare"](module.weight, keep)
        if wrong := [part for part in values if part != "weight" and (adapt is None or hasattr(module, part))]:
            why = "has no adapt to use it" if adapt is None else "its layer has one already"
            raise Problem(f"the method {choice.name!r} trains {wrong[0]!r}, but {why}", where=name)
        layers[name] = Layer(module, keep, {part: _trained(module, part, value) for part, value in values.items()})
        module.weight.requires_grad_("weight" in values)
        if adapt is not None:
            module.forward = _forward(layers[name], adapt)
    return Attached(verbs["project"], verbs["merge"], layers)


def _trained(module: nn.Linear, part: str, value: Tensor) -> nn.Parameter:
    """Gives a layer's parameter its first value, and registers it where it is new."""
    if part == "weight":
        module.weight.copy_(value)
    else:
        module.register_parameter(part, nn.Parameter(value))
    return getattr(module, part)


def _forward(layer: Layer, adapt: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        y = adapt(x, layer.module.weight, layer.keep, layer.trained)
        return y if layer.module.bias is None else y + layer.module.bias.to(y.dtype)

    return forward


@torch.no_grad()
def project_gradients(attached: Attached) -> None:
    """Puts the gradients of every layer where the method allows them, before they are clipped."""
    for layer in attached.layers.values():
        gradients = {name: p.grad for name, p in layer.trained.items() if p.grad is not None}
        if gradients:
            attached.project(gradients, layer.keep)


@torch.no_grad()
def project_weights(attached: Attached) -> None:
    """Puts what was trained back where the method allows it, after an update."""
    for layer in attached.layers.values():
        attached.project({name: p.data for name, p in layer.trained.items()}, layer.keep)


@torch.no_grad()
def merge(attached: Attached) -> None:
    """Writes every layer's final weight into the model and leaves its layers as plain as before `attach`."""
    for layer in attached.layers.values():
        module = layer.module
        module.weight.copy_(attached.merge(module.weight, layer.keep, layer.trained))
        module.weight.requires_grad_(True)
        vars(module).pop("forward", None)
        for part in layer.trained.keys() - {"weight"}:
            delattr(module, part)
