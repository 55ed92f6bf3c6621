"""What a piece of work costs, counted and not timed: products, bytes kept for the backward, most bytes at once.

Bytes are those of tensors: every storage that an operation hands out, from then until nothing refers to it. What an
operation needs only inside itself is not seen, nor what an allocator holds back; the numbers are the same every time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def _added(_: torch.Size, a: torch.Size, b: torch.Size, **__: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


IN_PLACE = {torch.ops.aten.addmm_: _added}
"""Products that torch's counter leaves out, with the FLOPs of their shapes."""


@dataclass(frozen=True)
class Cost:
    """What one run of some work took.

    Attributes:
        flops: Of matrix products, two for a multiplication with its addition.
        saved_bytes: Kept for the backward, besides what was there before.
        held_bytes: There before: weights, masks, the optimiser's state.
        peak_bytes: Most bytes at once, those included.
    """

    flops: int
    saved_bytes: int
    held_bytes: int
    peak_bytes: int


def count(work: Callable[[], object], held: Iterable[Tensor]) -> Cost:
    """Runs some work once and counts.

    Args:
        work: What is run.
        held: The tensors that are there before.
    """
    there = {pointer: size for pointer, size in map(_storage, held)}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        pointer, size = _storage(tensor)
        if pointer not in there:
            saved[pointer] = size
        return tensor

    live = _Live(there)
    flops = FlopCounterMode(display=False, custom_mapping=IN_PLACE)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), flops, live:
        work()
    held_bytes = sum(there.values())
    return Cost(flops.get_total_flops(), sum(saved.values()), held_bytes, held_bytes + live.peak)


def _storage(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()


@dataclass
class _Sizes:
    now: int = 0
    known: dict[int, weakref.ref] = field(default_factory=dict)


class _Live(TorchDispatchMode):
    """Counts the bytes of the storages that operations hand out, while something refers to them."""

    def __init__(self, there: Iterable[int]) -> None:
        super().__init__()
        self.peak = 0
        self._there = frozenset(there)
        self._sizes = _Sizes()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        sizes, key, size = self._sizes, id(storage), storage.nbytes()
        if key in sizes.known or storage.data_ptr() in self._there:
            return

        def gone(_: weakref.ref) -> None:
            sizes.known.pop(key)
            sizes.now -= size

        sizes.known[key] = weakref.ref(storage, gone)
        sizes.now += size
        self.peak = max(self.peak, sizes.now)
