"""The product of packed weights with activations, y = x W^T + bias, and the layer in the place of an `nn.Linear`.

A few rows of activations are multiplied by kernels that put weights in their places among the zeros as they read them:
up to 32, but of `bitmask` and `dense` in floats up to 8 (4 without AVX-512). For more rows weights are put there once,
in the first cache: int8 weights where the processor multiplies bytes (VNNI), `bitmask` and `dense` in floats. Where few
weights are stored each is multiplied by itself, so that zeros cost nothing. Where torch's own product is faster, it
multiplies (`library`).

Accuracy: exact weights are multiplied by exact activations and added in fp32, in another order where torch multiplies;
but for int8 weights. With these activations have so many bits (`activations`, 14 or 8), on a symmetric grid of each
row's own:

    x = step x level, step = max|x| / (2^(bits - 1) - 1), max|x| counts as 1e-30 where it is less

so each is off by at most step / 2, and a result by at most scale x sum|codes| x max|x| / 16382, or / 254 with 8 bits
(and the rounding of fp32). 8 bits are the same everywhere: the levels are the nearest ones, of a tie the even, in every
format, build and number of rows, and without a compiler (`rounded` says what is multiplied). What multiplies in floats
takes the rounded activations as floats, which is no faster: `index`, but for 2 to 32 rows with VNNI. 14 bits are a
bound of the error: where bytes are not multiplied activations are exact (`index`; the portable build; more than 32 rows
in `slot`, without VNNI, or of a bitmask with 74% zeros or more).
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import rooms
from harness.inference import formats
from harness.inference.formats import Packed, nm
from harness.inference.kernels import build, isa, library
from harness.inference.values import PRECISIONS, group_size
from harness.problems import Problem

LEVELS = {14: 8191, 8: 127}
"""To either side of zero, of an activation of so many bits."""
BITS = tuple(LEVELS)
"""Of activations in products with int8 weights; the first by default."""
SMALLEST = 1e-30
"""What the largest magnitude of a row counts as where it is less."""
SHARE = 1 << 15
"""Bytes of weights that are worth another thread."""
ACTIVATIONS = (torch.float32, torch.bfloat16, torch.float16)
_NUMBERS = {name: number for number, name in enumerate(PRECISIONS)}


def matmul(packed: Packed, x: Tensor, bias: Tensor | None = None, *, activations: int = 14) -> Tensor:
    """Multiplies activations with a packed matrix.

    Args:
        packed: The matrix [out, in].
        x: [..., in], fp32, bf16 or fp16, on the CPU, in any memory layout.
        bias: [out].
        activations: With int8 weights, the bits of an activation, 14 or 8.

    Returns:
        [..., out], of x's type.

    Raises:
        Problem: Another width, type or device; a gradient is asked for; 8 bits with other weights than int8.
    """
    formats.check(packed)
    _check_bits(activations, packed.precision)
    tensors = list(packed.tensors.values())
    return _multiply(x, tensors, bias, packed.format, packed.precision, *packed.shape, activations)


def rounded(x: Tensor, bits: int) -> Tensor:
    """Returns what activations are multiplied as where they have so many bits, float32 [..., in]; x [..., in]."""
    x, levels = x.float(), LEVELS[bits]
    largest = x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST)
    return (x * (torch.full_like(largest, levels) / largest)).round() * (largest / levels)


def _check_bits(activations: int, precision: str) -> None:
    if activations not in BITS:
        raise Problem(f"activations of {activations} bits", hint=f"they have {' or '.join(map(str, BITS))}")
    if activations != BITS[0] and precision != "int8":
        raise Problem(f"{precision} weights multiply activations as they are", hint="activations=8 goes with int8")


class PackedLinear(nn.Module):
    """A linear layer with packed weights, for inference; its buffers are the packed tensors.

    Args:
        packed: The weights [out, in].
        bias: [out].
        activations: With int8 weights, the bits of an activation, 14 or 8.

    Attributes:
        moves: How often any such layer's tensors were found elsewhere than before; as long as it is the same, what was
            prepared with the addresses of some is right.
    """

    moves = 0

    def __init__(self, packed: Packed, bias: Tensor | None = None, *, activations: int = 14):
        super().__init__()
        formats.check(packed)
        _check_bits(activations, packed.precision)
        self.activations = activations
        self.format, self.precision, self.shape = packed.format, packed.precision, packed.shape
        self.names = tuple(packed.tensors)
        self._ready: Ready | None = None
        for name, tensor in packed.tensors.items():
            self.register_buffer(name, tensor)
        self.register_buffer("bias", None if bias is None else bias.detach().float().contiguous())

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, format: str = "bitmask", precision: str = "fp32", *, activations: int = 14, **options
    ) -> PackedLinear:
        """Packs a linear layer; `options` are those of `formats.pack`."""
        packed = formats.pack(linear.weight, format, precision, **options)
        return cls(packed, linear.bias, activations=activations)

    @property
    def packed(self) -> Packed:
        """The weights."""
        tensors = {name: getattr(self, name) for name in self.names}
        return Packed(self.format, self.precision, self.shape, tensors)

    @property
    def in_features(self) -> int:
        """Width of the activations."""
        return self.shape[1]

    @property
    def out_features(self) -> int:
        """Width of the results."""
        return self.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Returns x W^T + bias, [..., out], of x's type; x [..., in]."""
        compiling = torch.compiler.is_compiling()
        if not compiling and not build.reason():
            return _product(self.ready(), x)
        tensors = [self._buffers[name] for name in self.names]
        multiply = packed_linear if compiling else _multiply
        return multiply(x, tensors, self._buffers["bias"], self.format, self.precision, *self.shape, self.activations)

    def ready(self) -> Ready:
        """Returns what the kernels are called with, made anew where a tensor or the build is another one than before.

        Raises:
            Problem: The weights are not on the CPU, or there is no compiler.
        """
        tensors = [self._buffers[name] for name in self.names]
        bias = self._buffers["bias"]
        ready = self._ready
        if ready is None or ready.build != isa.best() or ready.places != _places(tensors, bias):
            ready = make_ready(tensors, bias, self.format, self.precision, *self.shape, self.activations)
            self._moved(ready)
        return ready

    def _moved(self, ready: Ready | None = None) -> None:
        self.__dict__["_ready"] = ready
        PackedLinear.moves += 1

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self._buffers:
            self._moved()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ready": None}  # addresses are of this process and these tensors

    def extra_repr(self) -> str:
        """Returns what is shown of the layer."""
        bits = f", activations={self.activations}" if self.precision == "int8" else ""
        return f"{self.in_features}, {self.out_features}, {self.format}, {self.precision}{bits}"

    def _apply(self, fn, recurse: bool = True):
        before = self.packed.tensors
        super()._apply(fn, recurse)
        self._moved()
        for name, tensor in before.items():
            if getattr(self, name).dtype != tensor.dtype:
                raise Problem("packed weights cannot be cast", where=name, hint="cast the model first, then pack it")
        return self


@torch.library.custom_op("harness::packed_linear", mutates_args=())
def packed_linear(
    x: Tensor,
    tensors: list[Tensor],
    bias: Tensor | None,
    format: str,
    precision: str,
    rows: int,
    columns: int,
    activations: int = 14,
) -> Tensor:
    """Multiplies activations with packed weights; what `torch.compile` and `torch.export` see."""
    return _multiply(x, tensors, bias, format, precision, rows, columns, activations)


@packed_linear.register_fake
def _(x, tensors, bias, format, precision, rows, columns, activations=14):
    return x.new_empty(*x.shape[:-1], rows)


def _multiply(
    x: Tensor,
    tensors: Sequence[Tensor],
    bias: Tensor | None,
    format: str,
    precision: str,
    rows: int,
    columns: int,
    activations: int,
) -> Tensor:
    if not build.reason():
        return _product(make_ready(tensors, bias, format, precision, rows, columns, activations), x)
    _warn()
    _check(x, columns)
    names = _plan(format, precision)[2]
    packed = Packed(format, precision, (rows, columns), dict(zip(names, tensors, strict=True)))
    given = rounded(x, 8) if activations == 8 else x.float()
    return F.linear(given, formats.unpack(packed), None if bias is None else bias.float()).to(x.dtype)


def _product(ready: Ready, x: Tensor) -> Tensor:
    """Multiplies, and leaves out what changes nothing: an operation of torch takes microseconds out of the cache."""
    _check(x, ready.columns)
    plain, batch = x.dtype == torch.float32, x.shape[:-1]
    given = x if plain and x.is_contiguous() else x.float().contiguous()
    if batch.numel() >= ready.many:
        y = library.multiply(ready, rounded(given, 8) if ready.matrix.activations == 8 else given)
    else:
        y = torch.empty((*batch, ready.rows), dtype=torch.float32, device="cpu")
        ready.multiply(ready.matrix, given.data_ptr(), y.data_ptr(), batch.numel(), torch.get_num_threads())
    return y if plain else y.to(x.dtype)


def _check(x: Tensor, columns: int) -> None:
    if x.ndim == 0 or x.shape[-1] != columns or x.dtype not in ACTIVATIONS or not x.is_cpu:
        found = f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device.type}"
        raise Problem(f"activations are float32, bfloat16 or float16 [..., {columns}] on the CPU, not {found}")
    if torch.is_grad_enabled() and x.requires_grad:
        raise Problem("packed weights have no gradient", hint="they are for inference: use torch.inference_mode()")


@dataclass(frozen=True)
class Ready:
    """What the kernels are called with for a matrix, but for the activations.

    Attributes:
        multiply, expand: Of the format's kernels, of the build `build`.
        matrix: What they are given of the matrix.
        rows, columns: Of the matrix.
        many: Rows of activations from which on torch multiplies.
        weight: The matrix [rows, columns] where it is stored as torch multiplies it.
        bias: [rows].
        places: The addresses of its tensors and of the bias.
        held: What the addresses in `matrix` are of.
    """

    multiply: Callable[[build.Matrix, int, int, int, int], None]
    expand: Callable[[build.Matrix, int, int, int, int], None]
    build: str
    matrix: build.Matrix
    rows: int
    columns: int
    many: int
    weight: Tensor | None
    bias: Tensor | None
    places: list[int]
    held: tuple[object, ...]


def make_ready(
    tensors: Sequence[Tensor],
    bias: Tensor | None,
    format: str,
    precision: str,
    rows: int,
    columns: int,
    activations: int,
) -> Ready:
    """Writes down what the kernels are called with for a packed matrix [rows, columns].

    Raises:
        Problem: Its tensors are not whole and on the CPU; a bias of another size; there is no compiler.
    """
    if not all(each.is_cpu and each.is_contiguous() for each in tensors):
        raise Problem("packed weights are multiplied where they were packed: whole tensors on the CPU")
    if bias is not None and bias.shape != (rows,):
        raise Problem(f"a bias of {list(bias.shape)} for {rows} rows")
    source, slots, names = _plan(format, precision)
    named = dict(zip(names, tensors, strict=True))
    groups = named["scales"].shape[1] if "scales" in named else 1
    own = None if bias is None else bias.detach().float().contiguous()
    pointers = (ctypes.c_void_p * len(tensors))(*(each.data_ptr() for each in tensors))
    matrix = build.Matrix(
        tensors=ctypes.addressof(pointers),
        bias=None if own is None else own.data_ptr(),
        scales=named["scales"].data_ptr() if "scales" in named else None,
        sums=named["sums"].data_ptr() if "sums" in named else None,
        out=rows,
        inputs=columns,
        group=group_size(columns, groups),
        precision=_NUMBERS[precision],
        threads=1 + sum(each.nbytes for each in tensors) // SHARE,
        slots=slots,
        activations=activations,
    )
    held = (pointers, *(each.detach() for each in tensors))
    kernels = build.library(source)
    share = slots / 16 + named["values"].numel() / max(1, rows * columns)
    plain = source == "dense" and precision == "fp32"
    return Ready(
        multiply=kernels.multiply,
        expand=kernels.expand,
        build=isa.best(),
        matrix=matrix,
        rows=rows,
        columns=columns,
        many=library.many(source, precision, rows, columns, share),
        weight=named["values"].detach()[:, :columns] if plain else None,
        bias=own,
        places=_places(tensors, bias),
        held=held,
    )


def _places(tensors: Sequence[Tensor], bias: Tensor | None) -> list[int]:
    return [each.data_ptr() for each in tensors] + ([] if bias is None else [bias.data_ptr()])


@functools.cache
def _plan(format: str, precision: str) -> tuple[str, int, tuple[str, ...]]:
    """Returns the source, the slots and the names of the tensors of a format."""
    choice = rooms.resolve("format", format)
    names = tuple(formats.types(format, precision))
    if choice.name == "nm":
        return "slot", nm.slots(**choice.options), names
    return choice.name, choice.options.get("slots", 0), names


@functools.cache
def _warn() -> None:
    what = f"packed weights are expanded with torch at every product, which is slow: {build.reason()}"
    warnings.warn(what, RuntimeWarning, stacklevel=3)
