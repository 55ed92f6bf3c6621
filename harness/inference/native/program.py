"""A stack of decoder blocks as a program for `kernels/source/step.cpp`: operations on registers of float rows.

A family writes its stack down once, from the input to the final norm:

    with program.block():
        normed = program.norm(block.input_layernorm, program.input)
        q, k, v = (program.linear(layer, normed) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
        ...
        program.add(program.input, program.linear(attention.o_proj, found))

It holds addresses of the model's weights, so it also knows of each whether it still lies there (`fresh`).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.inference.kernels import isa
from harness.inference.kernels.linear import PackedLinear, Ready
from harness.inference.swap import Part

KINDS = ("norm", "product", "add", "rotate", "attend", "activate")
FUNCTIONS = ("silu", "relu", "gelu", "gelu_new")
"""Activations by the names of transformers, in the order of `step.cpp`."""
ALIASES = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new"}
RMS_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "T5LayerNorm")
LINE = 16
"""Floats of a cache line: registers begin at one."""


class View(ctypes.Structure):
    """Some columns of a register, as in `step.cpp`, which need not know how many they are.

    Attributes:
        start: The register's first float, for one row.
        width: Columns of the register.
        column: The first of these.
        columns: How many these are; all that follow where it is not said.
    """

    _fields_ = [("start", ctypes.c_int64), ("width", ctypes.c_int64), ("column", ctypes.c_int64)]

    def __init__(self, start: int, width: int, column: int = 0, columns: int | None = None) -> None:
        super().__init__(start, width, column)
        self.columns = width - column if columns is None else columns

    def part(self, begin: int, columns: int) -> View:
        """Returns so many of these columns."""
        return View(self.start, self.width, self.column + begin, columns)

    def expect(self, columns: int, of: str) -> None:
        """Makes sure how many columns these are.

        Raises:
            Unsupported: They are more or fewer; it names what they are of.
        """
        if self.columns != columns:
            raise Unsupported(f"{of} of {self.columns} columns in the place of {columns}")


NOTHING = View(-1, 0)


class Op(ctypes.Structure):
    """An operation, as in `step.cpp`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("kind", "mode")),
        *((name, View) for name in ("a", "b", "c", "to")),
        *((name, ctypes.c_int64) for name in ("heads", "shared", "dim", "layer")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "matrix", "multiply")),
        ("value", ctypes.c_double),
    ]


class Cached(ctypes.Structure):
    """One layer's keys and values, as in `step.cpp`."""

    _fields_ = [
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("length", ctypes.c_int64),
    ]


class Mask(ctypes.Structure):
    """What may be attended to, as in `step.cpp`."""

    _fields_ = [("kept", ctypes.c_void_p), ("width", ctypes.c_int64), ("bytes", ctypes.c_int64)]


class Step(ctypes.Structure):
    """All of a step, as in `step.cpp`."""

    _fields_ = [
        ("ops", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("count", "size", "threads", "batch")),
        *((name, View) for name in ("from_", "result")),
        *((name, ctypes.c_void_p) for name in ("x", "y", "own", "crossed")),
        *((name, Mask) for name in ("mask", "crossed_mask")),
        *((name, ctypes.c_void_p) for name in ("positions", "cosines", "sines", "distances")),
        ("reach", ctypes.c_int64),
    ]


class Unsupported(Exception):
    """What a stack holds, or a call asks for, that is not run natively."""


@dataclass(frozen=True)
class Tables:
    """What of a step depends on positions alone.

    Attributes:
        reach: For how many positions.
        cosines, sines: Of rotary embeddings, float32 [reach, dim].
        distances: What is added to the score of a key so many tokens before, float32 [heads, reach].
    """

    reach: int
    cosines: Tensor | None = None
    sines: Tensor | None = None
    distances: Tensor | None = None

    @property
    def places(self) -> dict[str, int | None]:
        """Their addresses, by the names in `Step`."""
        held = {name: getattr(self, name) for name in ("cosines", "sines", "distances")}
        return {name: None if tensor is None else tensor.data_ptr() for name, tensor in held.items()}


class Program:
    """Operations on registers, written by a family.

    Every operation makes sure that what it is given is as wide as it reads: compiled code does not. Whatever writes
    one raises `Unsupported` where it is not.

    Args:
        width: Floats of a row of the input, and of the result.

    Attributes:
        own, crossed: Heads of keys and values and the width of one, by layer, where it attends to what was said before,
            and to what an encoder read.
    """

    def __init__(self, width: int) -> None:
        self.build = isa.best()
        self.ops: list[Op] = []
        self.size = self.most = 0
        self.input = self.result = self.register(width)
        self.own: dict[int, tuple[int, int]] = {}
        self.crossed: dict[int, tuple[int, int]] = {}
        self._turned: set[int] = set()
        self._heads: set[int] = set()
        self._joined: dict[tuple[int, int], View] = {}
        self._layers: list[tuple[PackedLinear, Ready]] = []
        self._moves = 0
        self._parameters: list[tuple[dict[str, Tensor], str]] = []
        self._places: list[int] = []
        self._held: list[Tensor] = []

    def register(self, width: int) -> View:
        """Returns a new register of so many columns."""
        start, self.size = self.size, self.size + -(-width // LINE) * LINE
        self.most = max(self.most, self.size)
        return View(start, width)

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """Gives back, at its end, the registers that were taken within."""
        size = self.size
        yield
        self.size = size
        self._joined.clear()

    def norm(self, module: nn.Module, source: View) -> View:
        """Normalises rows, as `nn.LayerNorm` or an RMS norm does."""
        to = self.register(source.columns)
        self._norm(module, source, to, 1, source.columns)
        return to

    def norm_heads(self, module: nn.Module, view: View, heads: int, dim: int) -> None:
        """Normalises each head by itself, in place."""
        view.expect(heads * dim, f"{heads} heads")
        self._norm(module, view, view, heads, dim)

    def linear(self, module: nn.Module, source: View) -> View:
        """Multiplies with a packed layer; with layers that were joined once for all of them."""
        if not isinstance(module, Part):
            return self._product(module, source)
        key = (id(module.joined), source.start)
        if key not in self._joined:
            self._joined[key] = self._product(module.joined.layer, source)
        whole, widths = self._joined[key], module.joined.widths
        whole.expect(sum(widths), "joined layers")
        return whole.part(sum(widths[: module.index]), widths[module.index])

    def split(self, view: View, parts: int) -> list[View]:
        """Returns equal parts of a register's columns."""
        columns = view.columns // parts
        view.expect(columns * parts, f"{parts} equal parts")
        return [view.part(index * columns, columns) for index in range(parts)]

    def add(self, to: View, source: View) -> None:
        """Adds the rows of one register to another's."""
        source.expect(to.columns, "a sum")
        self._write("add", a=source, to=to, dim=to.columns)

    def rotate(self, view: View, heads: int, dim: int) -> None:
        """Turns each head by its position: rotary embedding, the first half of the columns against the second."""
        view.expect(heads * dim, f"{heads} heads")
        self._turned.add(dim)
        self._write("rotate", to=view, heads=heads, dim=dim)

    def attend(
        self,
        q: View,
        k: View = NOTHING,
        v: View = NOTHING,
        *,
        layer: int,
        heads: int,
        shared: int,
        dim: int,
        scale: float,
    ) -> View:
        """Attends with one query a head to a layer's cached keys and values, those of this step appended first.

        Args:
            q, k, v: Columns of heads x dim, and twice shared x dim; without k and v it attends to the encoder's.
            layer: Whose cache.
            heads: Of the queries.
            shared: Heads of keys and values.
            dim: Of a head.
            scale: Of the scores.
        """
        own = k.start != NOTHING.start
        if shared < 1 or heads % shared:
            raise Unsupported(f"{heads} heads that share {shared}")
        q.expect(heads * dim, f"{heads} heads")
        for each in (k, v) if own else ():
            each.expect(shared * dim, f"{shared} heads")
        (self.own if own else self.crossed)[layer] = (shared, dim)
        if own:
            self._heads.add(heads)
        to = self.register(heads * dim)
        self._write("attend", a=q, b=k, c=v, to=to, layer=layer, heads=heads, shared=shared, dim=dim, value=scale)
        return to

    def activate(self, name: str, source: View, gated: View = NOTHING) -> View:
        """Applies an activation, and multiplies with what it gates."""
        name = ALIASES.get(name, name)
        if name not in FUNCTIONS:
            raise Unsupported(f"the activation {name}")
        if gated.start != NOTHING.start:
            gated.expect(source.columns, "a gate")
        to = self.register(source.columns)
        self._write("activate", a=source, b=gated, to=to, mode=FUNCTIONS.index(name), dim=to.columns)
        return to

    def finish(self, result: View) -> None:
        """Says which register is the result, all of it; nothing is written after it."""
        result.expect(result.width, "a result")
        if len(set(self.own.values())) > 1:  # one memory is made for all layers
            raise Unsupported("layers with other heads than others")
        self.result = result
        self.array = (Op * len(self.ops))(*self.ops)
        self._moves = PackedLinear.moves

    def fresh(self, *, norms: bool) -> bool:
        """Says whether packed weights still lie where they lay, and the kernels are those that are to be used.

        Args:
            norms: Look for those of norms as well.
        """
        if self._moves != (moves := PackedLinear.moves):
            if not all([layer.ready() is ready for layer, ready in self._layers]):
                return False
            self._moves = moves
        if norms and [held[name].data_ptr() for held, name in self._parameters] != self._places:
            return False
        return self.build == isa.best()

    def check(self, tables: Tables) -> None:
        """Makes sure that tables are what the operations read.

        Raises:
            Unsupported: They are of another shape, or not float32 on the CPU.
        """
        turned, heads = {(tables.reach, dim) for dim in self._turned}, {(each, tables.reach) for each in self._heads}
        for tensor, shapes in ((tables.cosines, turned), (tables.sines, turned), (tables.distances, heads)):
            if tensor is not None and shapes != {tuple(tensor.shape)}:
                raise Unsupported("tables of another shape")
            if tensor is not None and not (tensor.dtype == torch.float32 and tensor.is_cpu and tensor.is_contiguous()):
                raise Unsupported("tables that are not float32 on the CPU")

    @staticmethod
    def expect(module: nn.Module, name: str) -> None:
        """Makes sure that a module is of the class of this name.

        Raises:
            Unsupported: It is not.
        """
        if type(module).__name__ != name:
            raise Unsupported(f"a {type(module).__name__} in the place of a {name}")

    def _norm(self, module: nn.Module, source: View, to: View, heads: int, dim: int) -> None:
        layer = type(module) is nn.LayerNorm
        if not layer and type(module).__name__ not in RMS_NORMS:
            raise Unsupported(f"a {type(module).__name__} for a norm")
        if layer and module.normalized_shape != (dim,):
            raise Unsupported("norms of another width")
        value = module.eps if layer else module.variance_epsilon
        weight, bias = self._parameter(module, "weight", dim), self._parameter(module, "bias", dim)
        self._write("norm", a=source, to=to, mode=layer, heads=heads, dim=dim, value=value, weight=weight, bias=bias)

    def _product(self, module: nn.Module, source: View) -> View:
        if not isinstance(module, PackedLinear):
            raise Unsupported(f"a linear layer that is a {type(module).__name__}")
        ready = module.ready()
        source.expect(ready.columns, "the input of a linear layer")
        source.expect(source.width, "the input of a linear layer")  # which is read from row to row
        to = self.register(ready.rows)
        multiply, matrix = ctypes.cast(ready.multiply, ctypes.c_void_p), ctypes.addressof(ready.matrix)
        self._write("product", a=source, to=to, matrix=matrix, multiply=multiply)
        self._layers.append((module, ready))
        return to

    def _parameter(self, module: nn.Module, name: str, dim: int) -> int | None:
        """Returns the address of so many weights of a norm, None where it has none."""
        tensor = getattr(module, name, None)
        if tensor is None:
            return None
        if tensor.dtype != torch.float32 or not (tensor.is_cpu and tensor.is_contiguous()):
            raise Unsupported("norms that are not float32 on the CPU")
        if tensor.shape != (dim,):
            raise Unsupported("norms of another width")
        self._parameters.append((module._parameters, name))
        self._places.append(tensor.data_ptr())
        self._held.append(tensor.detach())
        return tensor.data_ptr()

    def _write(self, kind: str, *, a: View = NOTHING, b: View = NOTHING, c: View = NOTHING, **fields: Any) -> None:
        self.ops.append(Op(kind=KINDS.index(kind), a=a, b=b, c=c, **fields))
