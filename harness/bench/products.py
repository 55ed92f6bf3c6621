"""Contenders of `harness bench linear`: ways to multiply the same matrix, ours packed and torch's own.

Each makes products over a copy of the weights of its own, as often as it is asked, and says the bytes of one copy.
torch's are what a user of torch would take: `nn.functional.linear` in fp32 and bf16, dynamic int8 quantisation, and its
sparse CSR matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from harness import rooms
from harness.inference import formats
from harness.inference.formats import Packed
from harness.inference.kernels import build
from harness.inference.kernels.linear import BITS, PackedLinear
from harness.problems import Problem

EIGHT = "int8 x 8 bits"
"""What int8 weights are called where activations have 8 bits, not 14."""
Product = Callable[[], object]
"""Multiplies, with weights of its own."""


@dataclass(frozen=True)
class Contender:
    """A way to multiply.

    Attributes:
        name: "torch fp32" or "slot:slots=4 int8".
        bytes: Of its weights, read once a product.
        copy: Returns a product over a new copy of the weights.
    """

    name: str
    bytes: int
    copy: Callable[[], Product]


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
    """Yields every format in every precision, int8 also with activations of 8 bits; for one that cannot hold the
    weights, why."""
    for name in names:
        for precision in precisions:
            try:
                packed = formats.pack(weight, name, precision)
            except Problem as problem:
                yield f"{name} {precision}: {problem.what}"
                continue
            yield Contender(f"{name} {precision}", packed.bytes, partial(_packed, packed, x, BITS[0]))
            if precision == "int8":
                yield Contender(f"{name} {EIGHT}", packed.bytes, partial(_packed, packed, x, 8))


def peers(weight: Tensor, x: Tensor) -> Iterator[Contender | str]:
    """Yields torch's own ways; for one that cannot run here, why."""
    count = weight.numel()
    indexed = 8 * int(weight.count_nonzero()) + 4 * (len(weight) + 1)
    yield Contender("torch fp32", 4 * count, partial(_dense, weight, x))
    yield Contender("torch bf16", 2 * count, partial(_dense, weight.bfloat16(), x.bfloat16()))
    yield from _where_it_runs(Contender("torch dynamic int8", count, partial(_dynamic, weight, x)))
    yield from _where_it_runs(Contender("torch CSR fp32", indexed, partial(_csr, weight, x)))


def read(bytes_: int, threads: int) -> Contender:
    """Returns a reading of so many bytes by so many threads that does nothing else: the memory's speed."""
    return Contender("read", bytes_, partial(_read, bytes_, threads))


def _where_it_runs(contender: Contender) -> Iterator[Contender | str]:
    try:
        contender.copy()()
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        yield f"{contender.name}: {str(error).splitlines()[0]}"
    else:
        yield contender


def _packed(packed: Packed, x: Tensor, activations: int) -> Product:
    own = {name: tensor.clone() for name, tensor in packed.tensors.items()}
    return partial(PackedLinear(replace(packed, tensors=own), activations=activations), x)


def _dense(weight: Tensor, x: Tensor) -> Product:
    return partial(F.linear, x, weight.clone())


def _dynamic(weight: Tensor, x: Tensor) -> Product:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch moves this to another package and says so
        made = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {torch.nn.Linear}, torch.qint8)
    return partial(made, x)


def _csr(weight: Tensor, x: Tensor) -> Product:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls CSR a beta
        made = weight.to_sparse_csr()
        made = torch.sparse_csr_tensor(
            made.crow_indices().int(), made.col_indices().int(), made.values(), size=made.shape
        )
    columns = x.T.contiguous()
    return partial(torch.mv, made, columns[:, 0]) if len(x) == 1 else partial(torch.matmul, made, columns)


def _read(bytes_: int, threads: int) -> Product:
    memory = torch.ones(bytes_ // 8, dtype=torch.int64)
    stream = build.library("stream").stream
    return lambda: stream(memory.data_ptr(), len(memory), threads)
