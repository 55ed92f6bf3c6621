"""The mask `keep`: which weights stay (True), by layer; applied, verified, measured, stored as one bit a weight.

A file `keep.safetensors` holds, per layer, the mask in row order packed eight to a byte (the first weight in the lowest
bit), and the shapes in its metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.problems import Problem, unknown
from harness.runs.shapes import header, weight_files

FILE = "keep.safetensors"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""Floating-point types by their names in safetensors."""


def _weights(model: nn.Module, keeps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weight of every masked layer, checked to exist in the mask's shape."""
    modules = dict(model.named_modules())
    for name, keep in keeps.items():
        if name not in modules:
            raise unknown("layer", name, modules)
        if modules[name].weight.shape != keep.shape:
            raise Problem(f"mask {tuple(keep.shape)} on weight {tuple(modules[name].weight.shape)}", where=name)
    return {name: modules[name].weight for name in keeps}


@torch.no_grad()
def apply(model: nn.Module, keeps: Mapping[str, Tensor]) -> None:
    """Sets every pruned weight to zero, in place.

    Args:
        model: The model.
        keeps: Bool mask [out, in] by layer name.
    """
    for name, weight in _weights(model, keeps).items():
        weight.masked_fill_(~keeps[name].to(weight.device), 0)


@torch.no_grad()
def verify(model: nn.Module, keeps: Mapping[str, Tensor]) -> None:
    """Checks that every pruned weight is exactly zero.

    Raises:
        Problem: A layer is missing, has another shape, or has weights where the mask says zero; it is named.
    """
    for name, weight in _weights(model, keeps).items():
        whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight  # processes may share it out
        _verify(name, whole, keeps[name])


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
    left = dict(keeps)
    for path in weight_files(folder):
        tensors, begin = header(path)
        with path.open("rb") as file:  # not mapped: what is looked at would count as this process's memory
            for name in [name for name in left if f"{name}.weight" in tensors]:
                said = tensors[f"{name}.weight"]
                first, last = said["data_offsets"]
                file.seek(begin + first)
                weight = torch.frombuffer(bytearray(file.read(last - first)), dtype=DTYPES[said["dtype"]])
                _verify(name, weight.view(said["shape"]), left.pop(name))
    if left:
        raise Problem("this pruned layer is not in the written files", where=f"{folder}: {next(iter(left))}")


def sparsity(keeps: Mapping[str, Tensor]) -> float:
    """Returns the fraction of pruned weights over all masked layers; 0 where there is none."""
    return sum(int((~k).sum()) for k in keeps.values()) / max(sum(k.numel() for k in keeps.values()), 1)


def save(folder: Path, keeps: Mapping[str, Tensor]) -> None:
    """Writes `keep.safetensors` into a folder."""
    shapes = {name: list(keep.shape) for name, keep in keeps.items()}
    save_file({name: _pack(keep) for name, keep in keeps.items()}, Path(folder) / FILE, {"shapes": json.dumps(shapes)})


def load(folder: Path) -> dict[str, Tensor]:
    """Reads `keep.safetensors` from a folder.

    Raises:
        Problem: There is no such file, or it is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise Problem("there is no mask here", where=str(path), hint="this model was not pruned by the harness")
    try:
        with safe_open(path, "pt") as file:
            shapes = json.loads((file.metadata() or {})["shapes"])
            return {name: _unpack(file.get_tensor(name), shape) for name, shape in shapes.items()}
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        hint = "copy the file again, or prune the model again"
        raise Problem(f"this mask is damaged: {error}", where=str(path), hint=hint) from error


def _pack(keep: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(keep.flatten().cpu().numpy(), bitorder="little"))


def _unpack(packed: Tensor, shape: list[int]) -> Tensor:
    bits = np.unpackbits(packed.numpy(), bitorder="little")[: math.prod(shape)]
    return torch.from_numpy(bits).bool().view(shape)
