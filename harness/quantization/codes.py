"""The file of a quantised model, `quantize.safetensors`: codes and scales that give back its weights bit by bit.

Per layer `<name>.codes` int8 [out, in] and `<name>.scale` float32 [out, groups]; where a grid is asymmetric
`<name>.zero` int8 [out, groups]; weight = scale * (codes - zero). The metadata's `layers` says, as JSON, the bits of
each layer and how its inputs are rounded: null (weights only), "dynamic", or [scale, zero].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.problems import Problem
from harness.quantization.activations import Dynamic, Input, Static
from harness.quantization.grid import Grid

FILE = "quantize.safetensors"


@dataclass(frozen=True)
class Coded:
    """A quantised layer: its codes, int8 [out, in], their grid, and how its inputs are rounded, if they are."""

    codes: Tensor
    grid: Grid
    input: Input | None = None

    @property
    def bytes(self) -> int:
        """What codes, scales and zero points take, the codes packed."""
        zeros = self.grid.zero.numel() if self.grid.zero.count_nonzero() else 0
        return -(-self.codes.numel() * self.grid.bits // 8) + 4 * self.grid.scale.numel() + zeros


def save(folder: Path, layers: Mapping[str, Coded]) -> None:
    """Writes `quantize.safetensors` into a folder."""
    tensors, said = {}, {}
    for name, layer in layers.items():
        tensors[f"{name}.codes"] = layer.codes.cpu().contiguous()
        tensors[f"{name}.scale"] = layer.grid.scale.cpu().contiguous()
        if layer.grid.zero.count_nonzero():
            tensors[f"{name}.zero"] = layer.grid.zero.to("cpu", torch.int8).contiguous()
        said[name] = {"bits": layer.grid.bits, "input": _text(layer.input)}
    save_file(tensors, Path(folder) / FILE, {"layers": json.dumps(said)})


def load(folder: Path) -> dict[str, Coded]:
    """Reads `quantize.safetensors` from a folder.

    Raises:
        Problem: There is no such file, or it is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise Problem("there are no codes here", where=str(path), hint="this model was not quantised by the harness")
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            return {name: _read(file, names, name, said) for name, said in _said(file.metadata()).items()}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Problem(f"these codes are damaged: {error}", where=str(path)) from error


def _said(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    return json.loads((metadata or {})["layers"])


def _read(file: Any, names: set[str], name: str, said: Mapping[str, Any]) -> Coded:
    codes, scale = (file.get_tensor(f"{name}.{part}") for part in ("codes", "scale"))
    zero = file.get_tensor(f"{name}.zero").float() if f"{name}.zero" in names else torch.zeros_like(scale)
    return Coded(codes, Grid(scale, zero, said["bits"], codes.shape[1] // scale.shape[1]), _input(said["input"]))


def _text(rounded: Input | None) -> Any:
    if isinstance(rounded, Static):
        return [rounded.scale, rounded.zero]
    return None if rounded is None else "dynamic"


def _input(said: Any) -> Input | None:
    return Static(*said) if isinstance(said, list) else {None: None, "dynamic": Dynamic()}[said]


@torch.no_grad()
def verify(model: nn.Module, layers: Mapping[str, Coded]) -> None:
    """Checks that codes and scales give the model's weights exactly, and that no code has more bits than it may.

    Raises:
        Problem: They do not, or a layer is missing; it is named.
    """
    modules = dict(model.named_modules())
    for name, layer in layers.items():
        weight = getattr(modules.get(name), "weight", None)
        if weight is None or weight.shape != layer.codes.shape:
            shape = None if weight is None else tuple(weight.shape)
            raise Problem(f"codes {tuple(layer.codes.shape)} on weight {shape}", where=name)
        codes, grid = layer.codes, layer.grid
        if codes.min() < grid.lowest or codes.max() > grid.highest:
            what = f"codes from {int(codes.min())} to {int(codes.max())} are not of {grid.bits} bits"
            raise Problem(what, where=name)
        wrong = int((grid.decode(codes).to(weight.dtype) != weight.cpu()).sum())
        if wrong:
            raise Problem(f"{wrong} of its {weight.numel()} weights are not what codes and scales say", where=name)
