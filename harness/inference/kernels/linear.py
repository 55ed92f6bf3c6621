"""The product of packed weights with activations, y = x W^T + bias, and the layer in the place of an `nn.Linear`.

Up to `DECODE` rows of activations are multiplied by kernels that put weights in their places among the zeros and read
the packed ones once for every 16 rows. More rows make the product bound by arithmetic; then each stored weight is
multiplied by its column of up to 128 rows side by side, and zeros cost nothing.

Accuracy: exact weights are multiplied by exact activations and added in fp32, but for up to `DECODE` rows and int8
weights in formats other than `index`. There activations have 14 bits where the processor has an instruction for it:
each is off by at most max|x| / 16382, so a result by at most scale x sum|codes| x max|x| / 16382 (and the rounding of
fp32); max|x| counts as 1e-30 where it is less.
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import rooms
from harness.inference import formats
from harness.inference.formats import Packed, nm
from harness.inference.kernels import build, isa
from harness.inference.values import PRECISIONS, group_size
from harness.problems import Problem

BATCH = 16
"""Rows of activations that a kernel takes at a time."""
DECODE = 32
"""Rows of activations up to which weights are put in their places; beyond, it is faster to take them one by one."""
SHARE = 1 << 15
"""Bytes of weights that are worth another thread."""
FLOAT = 4
"""Bytes of a float."""
ACTIVATIONS = (torch.float32, torch.bfloat16, torch.float16)
_NUMBERS = {name: number for number, name in enumerate(PRECISIONS)}


def matmul(packed: Packed, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiplies activations with a packed matrix.

    Args:
        packed: The matrix [out, in].
        x: [..., in], fp32, bf16 or fp16, on the CPU, in any memory layout.
        bias: [out].

    Returns:
        [..., out], of x's type.

    Raises:
        Problem: Another width, type or device; a gradient is asked for.
    """
    formats.check(packed)
    return _multiply(x, list(packed.tensors.values()), bias, packed.format, packed.precision, *packed.shape)


class PackedLinear(nn.Module):
    """A linear layer with packed weights, for inference; its buffers are the packed tensors.

    Args:
        packed: The weights [out, in].
        bias: [out].

    Attributes:
        moves: How often any such layer's tensors were found elsewhere than before; as long as it is the same, what was
            prepared with the addresses of some is right.
    """

    moves = 0

    def __init__(self, packed: Packed, bias: Tensor | None = None):
        super().__init__()
        formats.check(packed)
        self.format, self.precision, self.shape = packed.format, packed.precision, packed.shape
        self.names = tuple(packed.tensors)
        self._ready: Ready | None = None
        for name, tensor in packed.tensors.items():
            self.register_buffer(name, tensor)
        self.register_buffer("bias", None if bias is None else bias.detach().float().contiguous())

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, format: str = "bitmask", precision: str = "fp32", **options
    ) -> PackedLinear:
        """Packs a linear layer; `options` are those of `formats.pack`."""
        return cls(formats.pack(linear.weight, format, precision, **options), linear.bias)

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
        return multiply(x, tensors, self._buffers["bias"], self.format, self.precision, *self.shape)

    def ready(self) -> Ready:
        """Returns what the kernels are called with, made anew where a tensor or the build is another one than before.

        Raises:
            Problem: The weights are not on the CPU, or there is no compiler.
        """
        tensors = [self._buffers[name] for name in self.names]
        bias = self._buffers["bias"]
        ready = self._ready
        if ready is None or ready.build != isa.best() or ready.places != _places(tensors, bias):
            ready = make_ready(tensors, bias, self.format, self.precision, *self.shape)
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
        return f"{self.in_features}, {self.out_features}, {self.format}, {self.precision}"

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
    x: Tensor, tensors: list[Tensor], bias: Tensor | None, format: str, precision: str, rows: int, columns: int
) -> Tensor:
    """Multiplies activations with packed weights; what `torch.compile` and `torch.export` see."""
    return _multiply(x, tensors, bias, format, precision, rows, columns)


@packed_linear.register_fake
def _(x, tensors, bias, format, precision, rows, columns):
    return x.new_empty(*x.shape[:-1], rows)


def _multiply(
    x: Tensor, tensors: Sequence[Tensor], bias: Tensor | None, format: str, precision: str, rows: int, columns: int
) -> Tensor:
    if build.reason():
        _check(x, columns)
        return _unpacked(x, tensors, bias, format, precision, rows, columns)
    return _product(make_ready(tensors, bias, format, precision, rows, columns), x)


def _product(ready: Ready, x: Tensor) -> Tensor:
    _check(x, ready.columns)
    flat = x.reshape(-1, ready.columns)
    y = (_decode if flat.shape[0] <= DECODE else _many)(ready, flat)
    return y.to(x.dtype).view(*x.shape[:-1], ready.rows)


def _check(x: Tensor, columns: int) -> None:
    if x.ndim == 0 or x.shape[-1] != columns or x.dtype not in ACTIVATIONS or x.device.type != "cpu":
        found = f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device.type}"
        raise Problem(f"activations are float32, bfloat16 or float16 [..., {columns}] on the CPU, not {found}")
    if torch.is_grad_enabled() and x.requires_grad:
        raise Problem("packed weights have no gradient", hint="they are for inference: use torch.inference_mode()")


@dataclass(frozen=True)
class Ready:
    """What the kernels are called with for a matrix, but for the activations.

    Attributes:
        library: The format's kernels, of the build `build`.
        call: To be copied: others may be under way in other threads.
        precision, rows, columns: Of the matrix.
        bias: float32 [rows].
        places: The addresses of its tensors and of the bias.
        held: What the addresses in `call` are of.
    """

    library: ctypes.CDLL
    build: str
    call: build.Call
    precision: str
    rows: int
    columns: int
    bias: Tensor | None
    places: list[int]
    held: tuple[object, ...]


def make_ready(
    tensors: Sequence[Tensor], bias: Tensor | None, format: str, precision: str, rows: int, columns: int
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
    call = build.Call(
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
    )
    held = (pointers, *(each.detach() for each in tensors))
    library = build.library(source)
    return Ready(library, isa.best(), call, precision, rows, columns, own, _places(tensors, bias), held)


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


def _call(ready: Ready) -> build.Call:
    """Returns a call of one's own, with as many threads as torch has and the weights are worth."""
    call = build.Call.from_buffer_copy(ready.call)
    call.threads = min(torch.get_num_threads(), call.threads)
    return call


def _decode(ready: Ready, flat: Tensor) -> Tensor:
    x = flat.float().contiguous()
    y = x.new_empty(x.shape[0], ready.rows)
    call, given, made = _call(ready), x.data_ptr(), y.data_ptr()
    for begin in range(0, x.shape[0], BATCH):
        call.batch = min(BATCH, x.shape[0] - begin)
        call.x, call.y = given + begin * ready.columns * FLOAT, made + begin * ready.rows * FLOAT
        ready.library.multiply(call)
    return y


def _many(ready: Ready, flat: Tensor) -> Tensor:
    x, call = flat.float().contiguous(), _call(ready)
    y = x.new_empty(x.shape[0], ready.rows)
    call.batch, call.x, call.y = x.shape[0], x.data_ptr(), y.data_ptr()
    ready.library.multiply_many(call)
    return y


def _unpacked(
    x: Tensor, tensors: Sequence[Tensor], bias: Tensor | None, format: str, precision: str, rows: int, columns: int
) -> Tensor:
    _warn()
    names = _plan(format, precision)[2]
    packed = Packed(format, precision, (rows, columns), dict(zip(names, tensors, strict=True)))
    bias = None if bias is None else bias.float()
    return F.linear(x.float(), formats.unpack(packed), bias).to(x.dtype)


@functools.cache
def _warn() -> None:
    what = f"packed weights are expanded with torch at every product, which is slow: {build.reason()}"
    warnings.warn(what, RuntimeWarning, stacklevel=3)
