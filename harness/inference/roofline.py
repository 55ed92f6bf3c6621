"""How fast a decode step could be at best: what it must read, over how fast this machine reads.

    bound = bytes read / bandwidth,   share = bound / measured

What it must read are the weights of every layer that a step calls, as the engine stores them, and the cached keys and
values, of which there are more with every token: the mean over the steps counts. Activations are small beside them.
Bandwidth is measured by a read of memory that no cache holds. What fits in the last cache may be read faster than that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from harness.inference.embedding import PackedEmbedding
from harness.inference.greedy import Decoder

UNITS = {"K": 1 << 10, "M": 1 << 20}
LARGEST_READ = 2**30
"""Bytes of the measured read, at most; below, four times the last cache."""


def bandwidth(repeats: int = 7) -> float:
    """Returns the bytes a second of a streaming read with the threads that torch now has: the best of some tries."""
    half = min(LARGEST_READ, max(4 * cache_bytes(), 2**28)) // 8
    a, b = torch.ones(half), torch.ones(half)
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        torch.dot(a, b)
        best = min(best, time.perf_counter() - begin)
    return 8 * half / best


def cache_bytes() -> int:
    """Returns the size of the last cache, 0 where the system does not say."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size.rstrip("KM")) * UNITS.get(size[-1], 1) for size in sizes), default=0)


def stored(module: nn.Module) -> int:
    """Returns the bytes of a module's own parameters and buffers, those of its children not among them."""
    if _quantised(module):  # int8 values, and a scale and a zero point a row
        return module.in_features * module.out_features + 12 * module.out_features
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return sum(_bytes(tensor) for tensor in own)


def in_memory(model: nn.Module) -> int:
    """Returns the bytes of all of a model's weights as they are held; what is shared counts once."""
    shared: dict[int, int] = {}
    for module in model.modules():
        if _quantised(module):
            shared[id(module)] = stored(module)
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            shared[id(tensor)] = _bytes(tensor)
    return sum(shared.values())


@torch.inference_mode()
def read_by_a_step(model: nn.Module, inputs: Mapping[str, Tensor], tokens: int = 2) -> dict[str, int]:
    """Returns the bytes that a step after the prompt reads, by "weights" and "cache".

    Of an embedding, a step reads the rows of its tokens; it is left out, unless it is the output layer too.

    Args:
        model: What generates.
        inputs: Its prompt.
        tokens: How many are generated; the cache is the mean over the steps from the first of them to the last.
    """
    called: dict[int, int] = {}

    def note(module: nn.Module, given: tuple, out: object) -> None:
        called[id(module)] = stored(module)

    decoder = Decoder(model, inputs)
    token = decoder.first().argmax(-1, keepdim=True)
    before = sum(map(_bytes, _cached(decoder.cache)))
    leaves = [m for m in model.modules() if not isinstance(m, nn.Embedding | PackedEmbedding) and stored(m)]
    hooks = [module.register_forward_hook(note) for module in leaves]
    try:
        decoder.next(token)
    finally:
        for each in hooks:
            each.remove()
    added = sum(map(_bytes, _cached(decoder.cache))) - before
    return {"weights": sum(called.values()), "cache": before + added * tokens // 2}  # the steps' 1, 2, ..., tokens - 1


def theoretical_flop_ratio(model: nn.Module, names: Sequence[str]) -> float:
    """Returns the products with weights of a decode step over those with weights that are not zero; no speed-up.

    Args:
        model: A model with dense weights.
        names: The linears that count: the prunable ones, and the output layer.
    """
    weights = [model.get_submodule(name).weight for name in names]
    return sum(weight.numel() for weight in weights) / max(sum(int(weight.count_nonzero()) for weight in weights), 1)


def break_even(sparsities: Sequence[float], speedups: Sequence[float]) -> float | None:
    """Returns the sparsity from which on an engine is no slower than dense, on straight lines between the points.

    Args:
        sparsities: Where it was measured.
        speedups: Over dense, one each.

    Returns:
        None where it is slower at the highest sparsity; the lowest one where it is faster from there on.
    """
    points = sorted(zip(sparsities, speedups, strict=True))
    if points[-1][1] < 1:
        return None
    below = [index for index, (_, speedup) in enumerate(points) if speedup < 1]
    if not below:
        return points[0][0]
    (x0, y0), (x1, y1) = points[below[-1]], points[below[-1] + 1]
    return x0 + (x1 - x0) * (1 - y0) / (y1 - y0)


def _quantised(module: nn.Module) -> bool:
    """Says whether a module is torch.ao's quantised linear, whose weights are no parameters."""
    return isinstance(getattr(module, "_packed_params", None), nn.Module)


def _cached(cache: Any) -> Iterator[Tensor]:
    """Yields the keys and values of a cache of transformers."""
    if hasattr(cache, "self_attention_cache"):
        yield from _cached(cache.self_attention_cache)
        yield from _cached(cache.cross_attention_cache)
        return
    for layer in cache.layers:
        yield from (layer.keys, layer.values)


def _bytes(tensor: Tensor) -> int:
    if tensor.layout == torch.sparse_csr:
        return sum(map(_bytes, (tensor.crow_indices(), tensor.col_indices(), tensor.values())))
    if is_traceable_wrapper_subclass(tensor):  # torchao's, and 2:4: it says of itself what the dense one would be
        return sum(_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.element_size()
