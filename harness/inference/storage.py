"""A model's packed matrices in one safetensors file, and back, byte for byte.

Tensors are named `layer/tensor`. The metadata hold, as one JSON text, the version of this layout, format, precision and
shape of every layer, and the sha256 of the whole content, which is checked when the file is read.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from harness import exported
from harness.inference import formats, mapped
from harness.inference.formats import Packed
from harness.problems import Problem

FILE = "packed.safetensors"
VERSION = 2
_KEY = "packed"


def save(path: Path, layers: Mapping[str, Packed]) -> None:
    """Writes packed matrices by layer name into a file."""
    tensors = {f"{name}/{key}": tensor for name, packed in layers.items() for key, tensor in packed.tensors.items()}
    described = {
        name: {"format": packed.format, "precision": packed.precision, "shape": list(packed.shape)}
        for name, packed in layers.items()
    }
    said = {"version": VERSION, "layers": described, "sha256": _digest(described, tensors)}
    save_file(tensors, path, {_KEY: json.dumps(said, sort_keys=True)})


def load(path: Path, content: mmap.mmap | bytes | None = None) -> dict[str, Packed]:
    """Reads what `save` has written.

    Args:
        path: The file.
        content: What it holds, where the caller checks the sum of the whole file; then the sum of its content is not
            computed, and the tensors' sizes are left to whoever uses them, who checks them too.

    Raises:
        Problem: There is no such file; it is damaged or of another version; it has a format that is unknown here.
    """
    path = Path(path)
    if not path.is_file():
        raise Problem("there are no packed weights here", where=str(path))
    try:
        metadata, tensors = mapped.read(exported.content(path) if content is None else content)
        said = dict(json.loads(metadata.get(_KEY, "{}")))
    except (TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if said.get("version") != VERSION:
        what = f"packed weights of version {said.get('version', 'none')}; this harness reads version {VERSION}"
        raise Problem(what, where=str(path), hint="pack the model again")
    if content is None and said.get("sha256") != _digest(said["layers"], tensors):
        raise _damaged(path, "its content is not what was written")
    stored: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        name, _, own = key.rpartition("/")
        stored[name][own] = tensor
    layers = {name: _layer(about, stored[name], f"{path}: {name}") for name, about in said["layers"].items()}
    if content is None:
        for name, packed in layers.items():
            formats.check(packed, f"{path}: {name}")
    return layers


def _layer(about: Mapping, own: Mapping[str, Tensor], where: str) -> Packed:
    order = formats.types(about["format"], about["precision"], where)
    held = {key: own[key] for key in order if key in own}
    return Packed(about["format"], about["precision"], tuple(about["shape"]), held | own)


def _damaged(path: Path, why: str) -> Problem:
    return Problem(f"damaged packed weights: {why}", where=str(path), hint="copy the file or pack the model again")


def _digest(layers: Mapping, tensors: Mapping[str, Tensor]) -> str:
    """Returns the sha256 of the layers' description and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(layers, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
