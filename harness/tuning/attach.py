"""A method on a model: its functions applied to every pruned layer, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import BoolTensor, Tensor, nn
from torch.distributed.tensor import DTensor

from harness import rooms
from harness.problems import Problem
from harness.pruning import shares
from harness.pruning.keep import Masks
from harness.tuning import devices
from harness.tuning.bits import Bits, pack

KEEP = "keep"
"""The buffer of a layer that holds its mask in bits, so that a checkpoint has the masks that a method changed."""


@dataclass(frozen=True)
class Layer:
    """A pruned layer.

    Tensors are looked up in the module when they are asked for, since a wrapper for several devices exchanges them.

    Attributes:
        module: The layer's module.
        trains: The names of the parameters that the method trains.
        keeps: The names of the buffers that it keeps besides them.
    """

    module: nn.Linear
    trains: tuple[str, ...]
    keeps: tuple[str, ...] = ()

    @property
    def keep(self) -> Bits:
        """The mask [out, in] on the weight's device; what is put into it, the layer has."""
        return Bits(getattr(self.module, KEEP), self.module.in_features)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that the method trains, by name."""
        return {name: getattr(self.module, name) for name in self.trains}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What `adapt`, `evolve` and `merge` are given: what is trained and what is kept, by name."""
        return {name: getattr(self.module, name) for name in (*self.trains, *self.keeps)}


@dataclass(frozen=True)
class Attached:
    """A method's functions with the layers they are attached to; without layers, fine-tuning is dense."""

    merge: Callable[..., Tensor] | None = None
    project: Callable[..., None] | None = None
    adapt: Callable[..., Tensor] | None = None
    evolve: Callable[..., None] | None = None
    allot: Callable[..., list[dict[str, Tensor]]] | None = None
    layers: Mapping[str, Layer] = field(default_factory=dict)
    frozen: tuple[tuple[nn.Module, str], ...] = ()

    @property
    def keeps(self) -> Masks:
        """The masks as they are now, by layer, on the CPU."""
        masks = Masks()
        for name, layer in self.layers.items():
            masks[name] = layer.keep[:]
        return masks

    @property
    def buffers(self) -> dict[str, Tensor]:
        """Masks and what the method keeps, by layer and name: what processes that train together each have whole."""
        parts = {name: (KEEP, *layer.keeps) for name, layer in self.layers.items()}
        return {f"{name}.{part}": getattr(self.layers[name].module, part) for name in parts for part in parts[name]}


DENSE = Attached()


@torch.no_grad()
def attach(
    model: nn.Module,
    keeps: Mapping[str, BoolTensor],
    method: rooms.Choice | str,
    gradients: Mapping[str, Tensor] | None = None,
    place: torch.device | None = None,
) -> Attached:
    """Makes a model's pruned layers train as a method says.

    What a method trains besides the weight becomes a parameter of the layer's module, and what it keeps a buffer, so
    that optimiser and checkpoints find them there; `merge` takes them off again.

    Args:
        model: The pruned model, not wrapped.
        keeps: Name of a linear layer -> its mask [out, in].
        method: A choice of the room of methods.
        gradients: Name of a layer -> the mean gradient of the loss [out, in], for a method whose `prepare` looks at it.
        place: Device that the method's tensors are made on, a layer at a time, where the model waits on another; None
            is the model's.

    Raises:
        Problem: The method trains a tensor of a name that the layer uses, or one that no `adapt` would read.
    """
    choice = rooms.resolve("method", method)
    made = rooms.ROOMS["method"].method(choice.name)
    verbs = {verb: rooms.bind("method", choice, verb) for verb in ("prepare", "merge")}
    more = {verb: _optional(choice, verb) for verb in ("project", "adapt", "state", "evolve", "allot")}
    frozen = _trained(model) if made.constants.get("FREEZES") else ()
    for module, part in frozen:
        getattr(module, part).requires_grad_(False)
    layers = {}
    for name, keep in keeps.items():
        module = model.get_submodule(name)
        own = module.weight.device
        weight, keep = (tensor.to(place or own) for tensor in (module.weight, keep))
        looked = gradients[name].to(keep.device) if gradients else None
        given = {"gradient": looked} if "gradient" in made.needs else {}
        values = verbs["prepare"](weight, keep, **given)
        kept = more["state"](weight, keep) if more["state"] else {}
        _check_names(choice.name, name, module, [*values, *kept], more["adapt"] is not None)
        module.register_buffer(KEEP, pack(keep).to(own))
        for part, value in values.items():
            _train(module, part, value)
        for part, value in kept.items():
            module.register_buffer(part, value.to(own))
        layers[name] = Layer(module, tuple(values), tuple(kept))
        module.weight.requires_grad_("weight" in values)
        if more["adapt"]:
            module.forward = _forward(layers[name], more["adapt"])
    later = (more[verb] for verb in ("project", "adapt", "evolve", "allot"))
    return Attached(verbs["merge"], *later, layers, frozen)


def _trained(model: nn.Module) -> tuple[tuple[nn.Module, str], ...]:
    """Returns where a model's trained parameters are: to hold them would keep them whole where they are shared out."""
    places = (name.rpartition(".") for name, p in model.named_parameters() if p.requires_grad)
    return tuple((model.get_submodule(module), part) for module, _, part in places)


def _optional(choice: rooms.Choice, verb: str) -> Callable | None:
    return rooms.bind("method", choice, verb) if hasattr(rooms.load("method", choice.name), verb) else None


def _check_names(method: str, layer: str, module: nn.Module, parts: list[str], adapts: bool) -> None:
    """Refuses tensors that nothing would read, or whose names the layer has already."""
    for part in parts:
        if part != "weight" and (not adapts or hasattr(module, part) or part == KEEP):
            why = "its layer has one already" if adapts else "has no adapt to use it"
            raise Problem(f"the method {method!r} trains {part!r}, but {why}", where=layer)


def _train(module: nn.Linear, part: str, value: Tensor) -> None:
    """Gives a layer's parameter its first value, and registers it where it is new."""
    if part == "weight":
        module.weight.copy_(value)
    else:
        module.register_parameter(part, nn.Parameter(value.to(module.weight.device)))


def _forward(layer: Layer, adapt: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    asks = "training" in inspect.signature(adapt).parameters

    def forward(x: Tensor) -> Tensor:
        more = (layer.module.training,) if asks else ()
        y = adapt(x, layer.module.weight, layer.keep, layer.tensors, *more)
        return y if layer.module.bias is None else y + layer.module.bias.to(y.dtype)

    return forward


@torch.no_grad()
def project(attached: Attached, moments: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
    """Puts what is trained, and the optimiser's moments of it, back where the method allows them: after masks changed.

    Args:
        attached: The method and its layers.
        moments: The optimiser's state by parameter; empty before its first update.
    """
    if attached.project is None:
        return
    for layer in attached.layers.values():
        states = {name: moments.get(p, {}) for name, p in layer.trained.items()}
        kinds = {kind for name, state in states.items() for kind in state if _alike(state[kind], layer.trained[name])}
        moving = [{name: states[name][kind] for name in states} for kind in sorted(kinds)]
        for tensors in ({name: p.data for name, p in layer.trained.items()}, *moving):
            with devices.whole(tensors) as given:
                attached.project(given, layer.keep)


def _alike(value: object, parameter: nn.Parameter) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


@torch.no_grad()
def evolve(attached: Attached, moments: Mapping[nn.Parameter, Mapping[str, Tensor]], step: int, steps: int) -> None:
    """Lets a method change what every layer trains and keeps, after an update; most methods change nothing.

    Args:
        attached: The method and its layers.
        moments: The optimiser's state by parameter.
        step: Updates done.
        steps: Updates of the whole run.
    """
    if attached.evolve is None:
        return
    for layer in attached.layers.values():
        known = {name: moments[p] for name, p in layer.trained.items()}
        flat = {(name, own): value for name, state in known.items() for own, value in state.items()}
        tensors = {"weight": layer.module.weight.data, **layer.tensors}
        with devices.whole(tensors) as given, devices.whole(flat) as found:
            state = {name: {own: found[name, own] for own in known[name]} for name in known}
            attached.evolve(given["weight"], layer.keep, {k: given[k] for k in layer.tensors}, state, step, steps)


@torch.no_grad()
def allot(attached: Attached, blocks: Sequence[Sequence[str]], errors: Sequence[float], turn: int) -> None:
    """Lets a method share out anew what its layers keep, after a pruning.

    Args:
        attached: A method that has `allot`, and its layers.
        blocks: The names of each block's layers.
        errors: Each block's reconstruction error.
        turn: Prunings done.
    """
    for names, found in zip(blocks, attached.allot(errors, turn), strict=True):
        for name in names:
            for part, value in found.items():
                attached.layers[name].tensors[part].copy_(value)


@contextmanager
def merged(attached: Attached) -> Iterator[None]:
    """Makes the layers plain, with their final weights, while it is open: to prune them, or to look at their outputs.

    Afterwards a layer has its own weight and its method again, both under the mask that it has by then. What was done
    to the final weight besides masking it, by a solver, is added to the layer's own weight. Where an error or an
    interrupt ends it, its own weight comes back as it was; of a model that several processes share out it does not:
    they may be in the middle of a pass, and none of them goes on with it.

    Raises:
        Problem: The final weight does not follow when something is added to the layer's own; the layer is named.
    """
    own = {name: layer.module.weight.detach().clone() for name, layer in attached.layers.items()}
    for layer in attached.layers.values():
        _merge(attached, layer)
        vars(layer.module).pop("forward", None)
    whole = False
    try:
        yield
        whole = True
    finally:
        with torch.no_grad():
            for name, layer in attached.layers.items():
                before = own.pop(name)
                if whole:
                    _put_back(attached, name, layer, before)
                elif not isinstance(before, DTensor):
                    layer.module.weight.copy_(before)
                if attached.adapt is not None:
                    layer.module.forward = _forward(layer, attached.adapt)


def _put_back(attached: Attached, name: str, layer: Layer, own: Tensor) -> None:
    """Gives a layer its own weight again, masked, with what was done to the final weight meanwhile added to it."""
    with devices.whole({"weight": layer.module.weight, **layer.tensors}) as given:
        weight, tensors = given["weight"], {part: given[part] for part in layer.tensors}
        final = weight.detach().clone()
        weight.copy_(shares.full(own)).mul_(layer.keep[:])
        change = final - attached.merge(weight, layer.keep[:], tensors)
        if change.count_nonzero():
            weight.add_(change)
            if not torch.allclose(attached.merge(weight, layer.keep[:], tensors), final, rtol=1e-4, atol=1e-6):
                what = "what the pruning did to its weights cannot be put into this method"
                raise Problem(what, where=name, hint="prune by a criterion, which changes no weight that stays")


@torch.no_grad()
def merge(attached: Attached) -> None:
    """Writes every layer's final weight into the model and leaves its layers as plain as before `attach`."""
    for layer in attached.layers.values():
        _merge(attached, layer)
    leave(attached)


@torch.no_grad()
def _merge(attached: Attached, layer: Layer) -> None:
    """Writes a layer's final weight into the model."""
    with devices.whole({"weight": layer.module.weight, **layer.tensors}) as given:
        tensors = {part: given[part] for part in layer.tensors}
        given["weight"].copy_(attached.merge(given["weight"], layer.keep[:], tensors))


def leave(attached: Attached) -> None:
    """Takes the method off the model, whose weights stay as they are."""
    for layer in attached.layers.values():
        detach(layer)
    for module, part in attached.frozen:
        getattr(module, part).requires_grad_(True)


def detach(layer: Layer) -> None:
    """Takes off a layer what a method added to it; its weight stays as it is."""
    module = layer.module
    module.weight.requires_grad_(True)
    vars(module).pop("forward", None)
    for part in {*layer.trains, *layer.keeps, KEEP} - {"weight"}:
        delattr(module, part)
