"""The mask `keep`: which weights stay (True), by layer; applied, verified, measured, held and stored in a bit a weight.

A file `keep.safetensors` holds, per layer, the mask in row order packed eight to a byte (the first weight in the lowest
bit), and the shapes in its metadata. `Masks` holds the same in memory: for a model of 7 billion weights 0.8 GB, not 7.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.problems import Problem, unknown
from harness.pruning.shares import full
from harness.runs.shapes import header, weight_files

FILE = "keep.safetensors"
LEAST_ZEROS = 0.1
"""The share of zeros from which a layer counts as pruned: that of SquareHead's released code (arXiv:2310.06927)."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Floating-point types by their names in safetensors."""


class Masks(MutableMapping[str, Tensor]):
    """Masks by layer, packed: each is taken in, and given out anew, as a bool tensor [out, in] on the CPU."""

    def __init__(self, masks: Mapping[str, Tensor] | None = None):
        self._packed: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.update(masks or {})

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        bits = np.unpackbits(self._packed[name].numpy(), count=math.prod(shape), bitorder="little")
        return torch.from_numpy(bits.view(np.bool_)).view(shape)

    def __setitem__(self, name: str, keep: Tensor) -> None:
        packed = np.packbits(keep.flatten().cpu().numpy(), bitorder="little")
        self._packed[name], self._shapes[name] = torch.from_numpy(packed), tuple(keep.shape)

    def __delitem__(self, name: str) -> None:
        del self._packed[name], self._shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def save(self, path: Path) -> None:
        """Writes them into a safetensors file."""
        save_file(self._packed, path, {"shapes": json.dumps(self._shapes)})

    @classmethod
    def load(cls, path: Path) -> Masks:
        """Reads what `save` wrote.

        Raises:
            SafetensorError, KeyError, TypeError, ValueError, RuntimeError: The file holds something else.
        """
        masks = cls()
        with safe_open(path, "pt") as file:
            shapes = json.loads((file.metadata() or {})["shapes"])
            for name, shape in dict(shapes).items():
                packed = file.get_tensor(name)
                if not all(isinstance(size, int) and size >= 0 for size in shape):
                    raise ValueError(f"{name} has no shape")
                if packed.dtype != torch.uint8 or packed.shape != (math.ceil(math.prod(shape) / 8),):
                    raise ValueError(f"{name} is no mask of {shape}")
                masks._packed[name], masks._shapes[name] = packed, tuple(shape)
        return masks


def _masked(model: nn.Module, keeps: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yields every masked layer with its weight and its mask, which have one shape."""
    modules = dict(model.named_modules())
    for name, keep in keeps.items():
        if name not in modules:
            raise unknown("layer", name, modules)
        if modules[name].weight.shape != keep.shape:
            raise Problem(f"mask {tuple(keep.shape)} on weight {tuple(modules[name].weight.shape)}", where=name)
        yield name, modules[name].weight, keep


@torch.no_grad()
def apply(model: nn.Module, keeps: Mapping[str, Tensor]) -> None:
    """Sets every pruned weight to zero, in place.

    Args:
        model: The model.
        keeps: Bool mask [out, in] by layer name.

    Raises:
        Problem: A layer is missing or has another shape; it is named, and those before it are done.
    """
    for _, weight, keep in _masked(model, keeps):
        weight.masked_fill_(~keep.to(weight.device), 0)


@torch.no_grad()
def verify(model: nn.Module, keeps: Mapping[str, Tensor]) -> None:
    """Checks that every pruned weight is exactly zero.

    Raises:
        Problem: A layer is missing, has another shape, or has weights where the mask says zero; it is named.
    """
    for name, weight, keep in _masked(model, keeps):
        _verify(name, full(weight), keep)


def _verify(name: str, weight: Tensor, keep: Tensor) -> None:
    if weight.shape != keep.shape:
        raise Problem(f"mask {tuple(keep.shape)} on weight {tuple(weight.shape)}", where=name)
    alive = int(((weight != 0) & ~keep.to(weight.device)).count_nonzero())
    if alive:
        raise Problem(f"{alive} of {int((~keep).sum())} pruned weights are not zero", where=name)


def named_as(folder: Path, layers: Iterable[str]) -> bool:
    """Says whether a model's files name these layers as it does; transformers saves some families by older names."""
    stored = {name for path in weight_files(folder) for name in header(path)[0]}
    return {f"{layer}.weight" for layer in layers} <= stored


def verify_written(folder: Path, keeps: Mapping[str, Tensor]) -> None:
    """Checks a model's safetensors files as they lie on the disk, a layer at a time, as `verify` checks a model.

    Raises:
        Problem: As in `verify`; or there are no such files.
    """
    left = dict.fromkeys(keeps)
    for path in weight_files(folder):
        tensors, begin = header(path)
        with path.open("rb") as file:  # not mapped: what is looked at would count as this process's memory
            for name in [name for name in left if f"{name}.weight" in tensors]:
                said = tensors[f"{name}.weight"]
                first, last = said["data_offsets"]
                file.seek(begin + first)
                weight = torch.frombuffer(bytearray(file.read(last - first)), dtype=DTYPES[said["dtype"]])
                _verify(name, weight.view(said["shape"]), keeps[name])
                del left[name]
    if left:
        raise Problem("this pruned layer is not in the written files", where=f"{folder}: {next(iter(left))}")


def from_zeros(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the masks of the layers that count as pruned, by the zeros of their weights [out, in]."""
    masks = {name: weight != 0 for name, weight in weights.items()}
    return {name: mask for name, mask in masks.items() if sparsity({name: mask}) >= LEAST_ZEROS}


def sparsity(keeps: Mapping[str, Tensor]) -> float:
    """Returns the fraction of pruned weights over all masked layers; 0 where there is none."""
    return sum(int((~k).sum()) for k in keeps.values()) / max(sum(k.numel() for k in keeps.values()), 1)


def save(folder: Path, keeps: Mapping[str, Tensor]) -> None:
    """Writes `keep.safetensors` into a folder."""
    masks = keeps if isinstance(keeps, Masks) else Masks(keeps)
    masks.save(Path(folder) / FILE)


def load(folder: Path) -> Masks:
    """Reads `keep.safetensors` from a folder.

    Raises:
        Problem: There is no such file, or it is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise Problem("there is no mask here", where=str(path), hint="this model was not pruned by the harness")
    try:
        return Masks.load(path)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        hint = "copy the file again, or prune the model again"
        raise Problem(f"this mask is damaged: {error}", where=str(path), hint=hint) from error
