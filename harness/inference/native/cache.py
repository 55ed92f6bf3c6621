"""Keys and values of a whole cache in memory of their own, with room for more.

transformers' `DynamicCache` makes both anew, with `torch.cat`, for every layer and token. Here a step writes behind
what is filled, and the cache's layers are given views of it:

    held [layers, 2, batch, heads, room, dim]        layer.keys = held[layer, 0, :, :, :length]

Whatever else is done with the cache (reordered for beams, cropped, extended) puts other tensors into its layers. That
is seen, and they are copied into new memory: what was handed out before is never written to again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.inference.native.program import Cached, Unsupported

ROOM = 128
"""Tokens that there is room for beyond those that are filled, at least; else as many as are filled."""


class Room:
    """The memory of one cache.

    Args:
        layers: Of a `DynamicCache`; each holds keys and values, float32 [batch, heads, length, dim], of one shape.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.batch, heads, self.length, dim = layers[0].keys.shape
        self.room = self.length + max(self.length, ROOM)
        shape = (len(layers), 2, self.batch, heads, self.room, dim)
        self.held = torch.empty(shape, dtype=torch.float32, device="cpu")
        self.filled = self._views()
        for view, tensor in zip(self.filled, _tensors(layers), strict=True):
            view.copy_(tensor)
        self.layers = (Cached * len(layers))()
        for place, own in zip(self.layers, self.held, strict=True):
            place.keys, place.values = own[0].data_ptr(), own[1].data_ptr()
            place.batch, place.head = own.stride(1), own.stride(2)
        self._give(layers)

    def holds(self, layers: Sequence[Any]) -> bool:
        """Says whether the layers hold what they were given last, and there is room for another token."""
        if self.length == self.room or 2 * len(layers) != len(self.filled):
            return False
        return all([own is tensor for own, tensor in zip(self.filled, _tensors(layers), strict=True)])

    def extend(self, layers: Sequence[Any]) -> None:
        """Gives the layers a view of one token more, which a step has written."""
        self.length += 1
        self.filled = self._views()
        self._give(layers)

    def _views(self) -> tuple[Tensor, ...]:
        return self.held[..., : self.length, :].flatten(0, 1).unbind()

    def _give(self, layers: Sequence[Any]) -> None:
        tensors = iter(self.filled)
        for layer, place in zip(layers, self.layers, strict=True):
            layer.keys, layer.values = next(tensors), next(tensors)
            place.length = self.length


def check(layers: Sequence[Any], batch: int, shapes: Mapping[int, tuple[int, int]]) -> None:
    """Makes sure that a cache's layers hold keys and values that can be taken over.

    Args:
        layers: Of a `DynamicCache`.
        batch: Rows.
        shapes: Heads and the width of one, by layer, as a program reads them (`Program.own` or `.crossed`).

    Raises:
        Unsupported: They hold none, or of another type or shape.
    """
    tensors = _tensors(layers)
    if any(tensor is None or not tensor.numel() for tensor in tensors):
        raise Unsupported("an empty cache")
    length = tensors[0].shape[2:3]
    expected = {index: 2 * [(batch, heads, *length, dim)] for index, (heads, dim) in shapes.items()}
    if expected != {index: [tuple(each.shape) for each in _tensors([layer])] for index, layer in enumerate(layers)}:
        raise Unsupported("a cache of another shape")
    if not all(each.dtype == torch.float32 and each.is_cpu for each in tensors):
        raise Unsupported("a cache that is not float32 on the CPU")


class Encoded:
    """The keys and values that a decoder has of what an encoder read, the same in every step.

    Args:
        layers: As of `Room`.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.given = _tensors(layers)
        self.held = [tensor.contiguous() for tensor in self.given]
        self.length = self.held[0].shape[2]
        self.layers = (Cached * len(layers))()
        for index, place in enumerate(self.layers):
            keys, values = self.held[2 * index : 2 * index + 2]
            place.keys, place.values = keys.data_ptr(), values.data_ptr()
            place.batch, place.head, place.length = keys.stride(0), keys.stride(1), self.length

    def holds(self, layers: Sequence[Any]) -> bool:
        """Says whether the layers still hold the same."""
        tensors = _tensors(layers)
        return len(tensors) == len(self.given) and all([a is b for a, b in zip(self.given, tensors, strict=True)])


def _tensors(layers: Sequence[Any]) -> list[Tensor | None]:
    return [tensor for layer in layers for tensor in (layer.keys, layer.values)]
