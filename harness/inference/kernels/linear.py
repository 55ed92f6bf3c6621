"""The product of packed weights with activations, y = x W^T + bias, and the layer in the place of an `nn.Linear`.

Up to `DECODE` rows of activations are multiplied by the format's own kernel, which reads the packed weights once for
every 16 rows. More rows make the product bound by arithmetic, where zeros cannot be skipped with profit; then blocks of
rows of the matrix are expanded to fp32 in a buffer that stays in the cache and multiplied by the dense library, in fp32
whatever the activations are.

Accuracy: fp32, bf16 and fp16 weights and format `index` multiply exact weights by exact activations and add in fp32.
int8 weights are multiplied by activations of 14 bits where the processor has an instruction for it: each activation is
off by at most max|x| / 16382, so a result by at most scale x sum|codes| x max|x| / 16382 (and the rounding of fp32);
max|x| counts as 1e-30 where it is less.
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import rooms
from harness.inference import formats
from harness.inference.formats import Packed, nm
from harness.inference.kernels import build
from harness.inference.values import PRECISIONS, group_size
from harness.problems import Problem

BATCH = 16
"""Rows of activations that a kernel takes at a time."""
DECODE = {"fp32": 32, "bf16": 32, "fp16": 32, "int8": 96}
"""Rows of activations up to which a format's own kernel is used, by precision; beyond, the dense library was faster."""
BUFFER = 4 << 20
"""Bytes of a block of expanded weights."""
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
    """

    def __init__(self, packed: Packed, bias: Tensor | None = None):
        super().__init__()
        formats.check(packed)
        self.format, self.precision, self.shape = packed.format, packed.precision, packed.shape
        self.names = tuple(packed.tensors)
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
        tensors = [self._buffers[name] for name in self.names]
        multiply = packed_linear if torch.compiler.is_compiling() else _multiply
        return multiply(x, tensors, self._buffers["bias"], self.format, self.precision, *self.shape)

    def extra_repr(self) -> str:
        """Returns what is shown of the layer."""
        return f"{self.in_features}, {self.out_features}, {self.format}, {self.precision}"

    def _apply(self, fn, recurse: bool = True):
        before = self.packed.tensors
        super()._apply(fn, recurse)
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
    _check(x, bias, rows, columns)
    if build.reason():
        return _unpacked(x, tensors, bias, format, precision, rows, columns)
    flat = x.reshape(-1, columns)
    library, call, keep = _call(tensors, format, precision, rows, columns)
    if flat.shape[0] <= DECODE[precision]:
        y = _decode(library, call, flat, bias)
    else:
        y = _expanded(library, call, flat, bias)
    del keep
    return y.to(x.dtype).view(*x.shape[:-1], rows)


def _check(x: Tensor, bias: Tensor | None, rows: int, columns: int) -> None:
    if x.ndim == 0 or x.shape[-1] != columns or x.dtype not in ACTIVATIONS or x.device.type != "cpu":
        found = f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device.type}"
        raise Problem(f"activations are float32, bfloat16 or float16 [..., {columns}] on the CPU, not {found}")
    if bias is not None and bias.shape != (rows,):
        raise Problem(f"a bias of {list(bias.shape)} for {rows} rows")
    if torch.is_grad_enabled() and x.requires_grad:
        raise Problem("packed weights have no gradient", hint="they are for inference: use torch.inference_mode()")


@functools.cache
def _plan(format: str, precision: str) -> tuple[str, int, tuple[str, ...]]:
    """Returns the source, the slots and the names of the tensors of a format."""
    choice = rooms.resolve("format", format)
    names = tuple(formats.types(format, precision))
    if choice.name == "nm":
        return "slot", nm.slots(**choice.options), names
    return choice.name, choice.options.get("slots", 0), names


def _call(
    tensors: Sequence[Tensor], format: str, precision: str, rows: int, columns: int
) -> tuple[ctypes.CDLL, build.Call, object]:
    """Returns the library and the call, but for the activations, and what has to live as long as the call."""
    places, size = [], 0
    for each in tensors:
        if not (each.is_cpu and each.is_contiguous()):
            raise Problem("packed weights are multiplied where they were packed: whole tensors on the CPU")
        places.append(each.data_ptr())
        size += each.nbytes
    source, slots, names = _plan(format, precision)
    groups = tensors[names.index("scales")].shape[1] if "scales" in names else 1
    written, pointers = _written(tuple(places), names, rows, columns, groups, precision, slots)
    call = build.Call.from_buffer_copy(written)  # a call of its own: others may be under way in other threads
    call.threads = min(torch.get_num_threads(), 1 + size // SHARE)
    return build.library(source), call, pointers


@functools.lru_cache(maxsize=4096)
def _written(
    places: tuple[int, ...], names: tuple[str, ...], rows: int, columns: int, groups: int, precision: str, slots: int
) -> tuple[build.Call, object]:
    """Returns what is the same in every call with these tensors, and the array of their addresses that it points to.

    Nothing but the arguments goes into it, so it can never be out of date: weights elsewhere are other arguments.
    """
    place: Mapping[str, int] = dict(zip(names, places, strict=True))
    pointers = (ctypes.c_void_p * len(places))(*places)
    call = build.Call(
        tensors=ctypes.addressof(pointers),
        scales=place.get("scales"),
        sums=place.get("sums"),
        out=rows,
        inputs=columns,
        group=group_size(columns, groups),
        precision=_NUMBERS[precision],
        slots=slots,
    )
    return call, pointers


def _decode(library: ctypes.CDLL, call: build.Call, flat: Tensor, bias: Tensor | None) -> Tensor:
    x = flat.float().contiguous()
    count = x.shape[0]
    y = x.new_empty(count, call.out)
    bias = None if bias is None else bias.float().contiguous()
    call.bias = None if bias is None else bias.data_ptr()
    given, result = x.data_ptr(), y.data_ptr()
    for begin in range(0, count, BATCH):
        call.batch = min(BATCH, count - begin)
        call.x, call.y = given + FLOAT * begin * call.inputs, result + FLOAT * begin * call.out
        library.multiply(call)
    return y


def _expanded(library: ctypes.CDLL, call: build.Call, flat: Tensor, bias: Tensor | None) -> Tensor:
    """Multiplies by blocks of rows of the matrix, expanded; a block begins with a whole tile of format `slot`."""
    x = flat.float()
    y = x.new_empty(x.shape[0], call.out)
    step = max(BUFFER // (FLOAT * max(call.inputs, 1)) // 8 * 8, 8)
    block = torch.empty(min(step, call.out), call.inputs)
    for begin in range(0, call.out, step):
        end = min(begin + step, call.out)
        library.expand(call, begin, end, block.data_ptr())
        torch.mm(x, block[: end - begin].T, out=y[:, begin:end])
    return y if bias is None else y.add_(bias)


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
