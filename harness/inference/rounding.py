"""How far an engine that rounds may be from what it should compute: weights and activations, each by its own bound.

Weights: each that the engine multiplies with is read back and is off by no more than half a step,

    int8                 max|row| / 254           (a scale a row; with one a group, less)
    16 bits              |weight| eps / 2

Activations: what the engine says is compared with those very weights dense in float32. How far rounding the activations
may carry a model cannot be said of its logits layer by layer, so it is tried: PyTorch computes the model with them
rounded as the engine rounds them (`rounding`), and the engine may be no further off than

    bound = TOLERANCE + SLACK x error of the model that PyTorch rounds

    packed int8          inputs of a product, by row:    14 bits  x ~ max|x| / 8191 q        8 bits  x ~ max|x| / 127 q
    torch_int8           inputs of a product, by call:   7 bits   x ~ (max x - min x) / 127 (q - z)
    torchao_int8         inputs of a product, by row:    8 bits   x ~ max|x| / 127.5 q, or none
    16 bits              whatever a layer returns: to the type

The same roundings in another order of sums fall elsewhere, so two such models differ from each other as each differs
from the exact one; SLACK leaves room for that, and for the sums in 16 bits that no layer returns.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.inference import swap
from harness.inference.agreement import TOLERANCE, Reference, error
from harness.inference.engines.triton_bitmask import BitmaskLinear
from harness.inference.formats import unpack
from harness.inference.greedy import follow
from harness.inference.kernels.linear import SMALLEST, PackedLinear, rounded
from harness.inference.values import PRECISIONS
from harness.problems import Problem

SLACK = 4.0
"""How much further off an engine may be than the model that PyTorch rounds."""
EDGE = 1 + 1e-3
"""A weight in the middle of two steps is off by half a step and the rounding of float32."""


def verify(
    model: nn.Module, engine: nn.Module, inputs: Mapping[str, Tensor], dense: Reference
) -> dict[str, float | None]:
    """Compares an engine that rounds with the weights that it multiplies with, dense in float32.

    Args:
        model: The model that the engine was made of.
        engine: What it made of it.
        inputs: The prompt.
        dense: What the model generated; the engine follows its tokens.

    Returns:
        `own_error`, the largest error of its logits, in standard deviations; its `bound`; and `weight_error`, the
        largest of a weight, as a share of the largest weight of its matrix.

    Raises:
        Problem: A weight is off by more than half a step; it is named.
    """
    plain = Dense(model, engine)
    tokens = dense.tokens.to(model.device)
    said = Reference(dense.tokens, follow(plain.model, inputs, tokens).cpu())
    own = error(follow(engine, inputs, tokens).cpu(), said)
    return {"own_error": own, "bound": plain.bound(inputs, said), "weight_error": plain.weight_error}


def bound_of_16_bits(model: nn.Module, inputs: Mapping[str, Tensor], dense: Reference) -> float:
    """Returns how far a runtime whose weights cannot be read, in bfloat16, may be from the model in float32."""
    return Dense(model, copy.deepcopy(model).to(torch.bfloat16)).bound(inputs, dense)


class Dense:
    """A model with the weights that an engine multiplies with, dense and in float32."""

    def __init__(self, model: nn.Module, engine: nn.Module) -> None:
        """Reads the weights back.

        Args:
            model: The model that the engine was made of.
            engine: What the engine made of it; of PyTorch's linears, ours, or in 16 bits.

        Raises:
            Problem: A weight is off by more than half a step.
        """
        self.model = copy.deepcopy(model)
        names = [*swap.prunable(model), *filter(None, [swap.head(model)])]
        self.layers = {name: _found(engine, name) for name in names}
        self.weight_error = 0.0
        given = {**dict(engine.named_parameters()), **dict(engine.named_buffers())}
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            if name.removesuffix(".weight") not in self.layers and name in given and tensor.is_floating_point():
                tensor.data = self._checked(name, tensor, given[name].detach().float(), given[name].dtype)
        for name, (layer, rows) in self.layers.items():
            exact = model.get_submodule(name).weight.detach()
            held = self._checked(name, exact, multiplied(layer)[rows].to(exact.device), _stored(layer))
            self.model.get_submodule(name).weight = nn.Parameter(held, requires_grad=False)

    def _checked(self, name: str, exact: Tensor, held: Tensor, stored: torch.dtype) -> Tensor:
        exact = exact.detach()
        off = (held - exact).abs()
        if not bool((off <= half_step(exact, stored) * EDGE).all()):  # so that what is no number is refused too
            hint = "the engine packs or rounds it wrongly; its speed is not reported"
            raise Problem("a weight is off by more than half a step", where=name, hint=hint)
        self.weight_error = max(self.weight_error, float(off.max() / exact.abs().max().clamp_min(SMALLEST)))
        return held

    def bound(self, inputs: Mapping[str, Tensor], said: Reference) -> float:
        """Returns how far an engine's logits may be from this model's, in standard deviations.

        Args:
            inputs: The prompt.
            said: What this model says, as `Reference`.
        """
        roundings = {name: rounding(layer) for name, (layer, _) in self.layers.items()}
        with _hooked(self.model, {name: by for name, by in roundings.items() if by}, self.type):
            found = follow(self.model, inputs, said.tokens.to(self.model.device)).cpu()
        return TOLERANCE + SLACK * error(found, said)

    @property
    def type(self) -> torch.dtype | None:
        """The 16-bit type that the engine computes in; None for one that computes in float32."""
        types = {layer.weight.dtype for layer, _ in self.layers.values() if type(layer) is nn.Linear}
        return next((each for each in types if each.itemsize == 2), None)


def multiplied(layer: nn.Module) -> Tensor:
    """Returns the weights that a layer multiplies with, float32 [out, in], where they lie."""
    if isinstance(layer, PackedLinear):
        return unpack(layer.packed)
    if isinstance(layer, BitmaskLinear):
        return _from_bitmask(layer)
    weight = layer.weight() if callable(layer.weight) else layer.weight.detach()
    if weight.is_quantized or is_torchao(weight):
        return weight.dequantize()
    return (weight if type(weight) is Tensor and weight.layout is torch.strided else weight.to_dense()).float()


def half_step(exact: Tensor, stored: torch.dtype) -> Tensor:
    """Returns how far from each of these weights, [out, in] for int8, one of another type may be."""
    if stored is torch.int8:
        return (exact.abs().amax(1, keepdim=True) / 254).expand_as(exact)
    if stored is torch.float32:
        return torch.zeros_like(exact)
    info = torch.finfo(stored)
    return (exact.abs() * info.eps).clamp_min(info.tiny * info.eps) / 2


def rounding(layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Returns how a layer rounds its inputs; None where it multiplies them as they are."""
    if isinstance(layer, PackedLinear):
        bits = layer.activations
        exact = layer.precision != "int8" or (bits == 14 and layer.format == "index")
        return None if exact else lambda x: rounded(x, bits)
    weight = getattr(layer, "weight", None)
    if is_torchao(weight):
        return by_row if weight.act_quant_kwargs else None
    return by_call if callable(weight) else None


def is_torchao(weight: object) -> bool:
    """Says whether a weight is torchao's: int8 in the guise of float32."""
    return type(weight).__module__.startswith("torchao.")


def by_call(x: Tensor) -> Tensor:
    """Returns activations rounded to 128 levels between the smallest and the largest of them all, 0 among them."""
    low, high = x.min().clamp_max(0), x.max().clamp_min(0)
    step = ((high - low) / 127).clamp_min(SMALLEST)
    return (x / step).round() * step


def by_row(x: Tensor) -> Tensor:
    """Returns activations rounded to 256 levels from -largest to largest of each row, the highest of them left out."""
    step = (x.abs().amax(-1, keepdim=True) / 127.5).clamp_min(SMALLEST)
    return (x / step).round().clamp(-128, 127) * step


@contextlib.contextmanager
def _hooked(
    model: nn.Module, inputs: Mapping[str, Callable[[Tensor], Tensor]], to: torch.dtype | None
) -> Iterator[None]:
    """Rounds the inputs of layers by name, and whatever any layer returns to a type."""

    def narrow(module: nn.Module, given: Any, out: Any) -> Any:
        if isinstance(out, tuple):
            return tuple(narrow(module, given, each) for each in out)
        floats = isinstance(out, Tensor) and out.is_floating_point()
        return out.to(to).to(out.dtype) if floats else out

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, given, by=by: (by(given[0]), *given[1:]))
        for name, by in inputs.items()
    ]
    if to is not None:
        hooks += [module.register_forward_hook(narrow) for module in list(model.modules())[1:]]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _found(engine: nn.Module, name: str) -> tuple[nn.Module, slice]:
    """Returns the layer that computes a linear in an engine, and which of its rows are the linear's."""
    layer = engine.get_submodule(name)
    if isinstance(layer, swap.Part):
        begin = sum(layer.joined.widths[: layer.index])
        return layer.joined.layer, slice(begin, begin + layer.out_features)
    return layer, slice(None)


def _from_bitmask(layer: BitmaskLinear) -> Tensor:
    """Reads the weights back without the kernels that are to be verified."""
    lanes = torch.arange(64, device=layer.mask.device)
    keep = (layer.mask[..., None] >> lanes & 1).bool().flatten(1)[:, : layer.shape[1]]
    dense = torch.zeros(layer.shape, device=layer.mask.device)
    dense[keep] = layer.values[: int(keep.sum())].float()
    return dense if layer.scales is None else dense * layer.scales


def _stored(layer: nn.Module) -> torch.dtype:
    """Returns the type that a layer's weights are held in."""
    if isinstance(layer, PackedLinear):
        return PRECISIONS[layer.precision]
    if isinstance(layer, BitmaskLinear):
        return layer.kind
    return torch.int8 if callable(layer.weight) or is_torchao(layer.weight) else layer.weight.dtype
