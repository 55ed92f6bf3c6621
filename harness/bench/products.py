"""Contenders of `harness bench linear`: ways to multiply the same matrix, ours packed and torch's own.

Each is a function of no arguments over weights of its own, and the bytes of these weights. torch's are what a user of
torch would take: `nn.functional.linear` in fp32 and bf16, dynamic int8 quantisation, and its sparse CSR matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from harness import rooms
from harness.inference import formats
from harness.inference.kernels.linear import PackedLinear
from harness.problems import Problem


@dataclass(frozen=True)
class Contender:
    """A way to multiply.

    Attributes:
        name: "torch fp32" or "slot:slots=4 int8".
        bytes: Of its weights, read once a product.
        run: Multiplies.
    """

    name: str
    bytes: int
    run: Callable[[], Tensor]


def matrix(rows: int, columns: int, sparsity: str, seed: int = 0) -> Tensor:
    """Returns normally distributed weights with zeros at random places.

    Args:
        rows: Of the matrix.
        columns: Of the matrix.
        sparsity: A fraction of zeros, "0.75", or a pattern, "8:16": that many of so many columns stay.
        seed: Of the weights and the places.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    chance = torch.rand(rows, columns, generator=generator)
    if ":" in sparsity:
        options = rooms.parse(sparsity).options
        return weight * rooms.bind("pattern", sparsity)(chance, 1 - options["n"] / options["m"])
    return weight * (chance >= float(sparsity))


def ours(weight: Tensor, x: Tensor, names: Sequence[str], precisions: Sequence[str]) -> Iterator[Contender | str]:
    """Yields every format in every precision; for one that cannot hold the weights, why."""
    for name in names:
        for precision in precisions:
            try:
                packed = formats.pack(weight, name, precision)
            except Problem as problem:
                yield f"{name} {precision}: {problem.what}"
                continue
            layer = PackedLinear(packed)
            yield Contender(f"{name} {precision}", packed.bytes, lambda layer=layer: layer(x))


def peers(weight: Tensor, x: Tensor) -> Iterator[Contender | str]:
    """Yields torch's own ways; for one that cannot run here, why."""
    count = weight.numel()
    yield Contender("torch fp32", 4 * count, lambda: F.linear(x, weight))
    half, activations = weight.bfloat16(), x.bfloat16()
    yield Contender("torch bf16", 2 * count, lambda: F.linear(activations, half))
    for name, bytes_, make in (("torch dynamic int8", count, _dynamic), ("torch CSR fp32", 0, _csr)):
        try:
            run, stored = make(weight, x)
            run()
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            yield f"{name}: {str(error).splitlines()[0]}"
        else:
            yield Contender(name, bytes_ or stored, run)


def _dynamic(weight: Tensor, x: Tensor) -> tuple[Callable[[], Tensor], int]:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch moves this to another package and says so
        made = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {torch.nn.Linear}, torch.qint8)
    return lambda: made(x), weight.numel()


def _csr(weight: Tensor, x: Tensor) -> tuple[Callable[[], Tensor], int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls CSR a beta
        made = weight.to_sparse_csr()
        made = torch.sparse_csr_tensor(
            made.crow_indices().int(), made.col_indices().int(), made.values(), size=made.shape
        )
    columns = x.T.contiguous()
    multiply = (lambda: torch.mv(made, columns[:, 0])) if len(x) == 1 else (lambda: made @ columns)
    return multiply, 8 * made.values().numel() + 4 * (len(weight) + 1)
