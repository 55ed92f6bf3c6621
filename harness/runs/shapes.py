"""A model's shapes from its files alone: `config.json` and the headers of its safetensors, without reading a weight.

A safetensors file begins with the length of its header, 8 bytes, and the header, JSON: tensor -> dtype, shape, place.
A prunable layer is a matrix inside a numbered block: `model.layers.3.mlp.up_proj.weight`.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.problems import Problem

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
LAYER = re.compile(r"(?P<block>.+?\.\d+)\.(?P<inner>.+)\.weight")
NOT_LINEAR = re.compile(r"relative_attention_bias$|norm|embed")
"""Matrices inside a block that are no linear layer."""
LLAMA_TYPES = ("llama", "mistral")
"""Model types whose shapes follow from their config alone."""
SHARED = (re.compile(r"\b(q|k|v)(_proj)?$"), re.compile(r"\b(gate|up)(_proj)?$|\bwi_[01]$"))
"""Names of layers that read the same input, where they lie side by side."""
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Matrix:
    """A prunable layer: its dotted name, its block's, [out, in], and a name shared by layers that read one input."""

    name: str
    block: str
    out: int
    columns: int
    reads: str


@dataclass(frozen=True)
class Shapes:
    """What the files say of a model.

    Attributes:
        layers: Its prunable layers in the order of their blocks.
        parameters: All its parameters.
        stored: Bytes of its weights' files.
        config: Its `config.json`.
    """

    layers: tuple[Matrix, ...]
    parameters: int
    stored: int
    config: Mapping[str, Any]

    @functools.cached_property
    def blocks(self) -> dict[str, list[Matrix]]:
        """The layers by block."""
        found: dict[str, list[Matrix]] = {}
        for layer in self.layers:
            found.setdefault(layer.block, []).append(layer)
        return found


def read(folder: Path) -> Shapes:
    """Reads the shapes of the model in a folder; of a LLaMA-type model without weights, from its config.

    Raises:
        Problem: It has no safetensors and is of another type, or they or its config cannot be read.
    """
    config = _config(folder)
    if config.get("model_type") in LLAMA_TYPES and not any(folder.glob("*.safetensors*")):
        return of_llama(config)
    files = weight_files(folder)
    tensors: dict[str, Mapping[str, Any]] = {}
    for file in files:
        tensors |= header(file)[0]
    layers = []
    for name, said in tensors.items():
        found = LAYER.fullmatch(name)
        if found and len(said["shape"]) == 2 and not NOT_LINEAR.search(found["inner"]):
            layers.append(_matrix(name.removesuffix(".weight"), found["block"], said["shape"]))
    layers.sort(key=lambda layer: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", layer.block)])
    counts = [math.prod(said["shape"]) for said in tensors.values()]
    stored = sum(math.prod(said["shape"]) * BYTES.get(said["dtype"], 1) for said in tensors.values())
    return Shapes(tuple(layers), sum(counts), stored, config)


def of_llama(config: Mapping[str, Any]) -> Shapes:
    """Returns the shapes of a LLaMA-type model, its weights in 16 bits."""
    width, wide, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    own, shared = heads * head, (config.get("num_key_value_heads") or heads) * head
    attention = {"q_proj": (own, width), "k_proj": (shared, width), "v_proj": (shared, width), "o_proj": (width, own)}
    mlp = {"gate_proj": (wide, width), "up_proj": (wide, width), "down_proj": (width, wide)}
    named = {**{f"self_attn.{n}": s for n, s in attention.items()}, **{f"mlp.{n}": s for n, s in mlp.items()}}
    blocks = [f"model.layers.{number}" for number in range(config["num_hidden_layers"])]
    layers = [_matrix(f"{block}.{name}", block, list(shape)) for block in blocks for name, shape in named.items()]
    vectors = (2 * len(blocks) + 1) * width
    tables = config["vocab_size"] * width * (1 if config.get("tie_word_embeddings") else 2)
    count = sum(layer.out * layer.columns for layer in layers) + vectors + tables
    return Shapes(tuple(layers), count, 2 * count, config)


def _config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise Problem(f"this config cannot be read: {error}", where=str(folder / "config.json")) from error


def _matrix(name: str, block: str, shape: list[int]) -> Matrix:
    parent, _, last = name.rpartition(".")
    group = next((str(i) for i, names in enumerate(SHARED) if names.search(last)), last)
    return Matrix(name, block, shape[0], shape[1], f"{parent}.{group}.{shape[1]}")


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files of a model.

    Raises:
        Problem: It has none.
    """
    if (folder / INDEX).is_file():
        named = json.loads((folder / INDEX).read_text(encoding="utf8"))["weight_map"].values()
        return [folder / name for name in sorted(set(named))]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    raise Problem("its weights are no safetensors", where=str(folder))


def header(file: Path) -> tuple[dict[str, Mapping[str, Any]], int]:
    """Returns a safetensors file's tensors by name, with dtype, shape and data_offsets, and where its data begin.

    Raises:
        Problem: It is no such file.
    """
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            if size > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            said = json.loads(opened.read(size))
    except (OSError, ValueError) as error:
        raise Problem(f"this is no safetensors file: {error}", where=str(file)) from error
    said.pop("__metadata__", None)
    return said, 8 + size
