"""A copy of a model with its first blocks alone: the same widths, another depth. Nothing is loaded but bytes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from harness.problems import Problem
from harness.runs.shapes import INDEX, SINGLE, header, weight_files

DEPTHS = ("num_hidden_layers", "n_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
"""The keys of a `config.json` that hold how many blocks a stack has."""
NUMBERED = re.compile(r"\.(\d+)\.")


def depth(folder: Path) -> int:
    """Returns how many blocks the deepest stack of a model has.

    Raises:
        Problem: Its config does not say.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    known = [config[key] for key in DEPTHS if isinstance(config.get(key), int)]
    if not known:
        raise Problem("this config does not say how many blocks the model has", where=str(folder / "config.json"))
    return max(known)


def truncate(folder: Path, blocks: int, into: Path) -> Path:
    """Writes a copy of a model that keeps the first `blocks` blocks of each stack, and returns its folder.

    Args:
        folder: The model, with safetensors.
        blocks: How many blocks stay.
        into: The folder to write.
    """
    full = depth(folder)
    into.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name != INDEX:
            shutil.copyfile(path, into / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    cut = {key: min(value, blocks) for key, value in config.items() if key in DEPTHS and isinstance(value, int)}
    cut |= {key: value[:blocks] for key, value in config.items() if isinstance(value, list) and len(value) == full}
    (into / "config.json").write_text(json.dumps({**config, **cut}, indent=1), encoding="utf8")
    _weights(folder, blocks, into / SINGLE)
    return into


def _weights(folder: Path, blocks: int, into: Path) -> None:
    """Copies the tensors that stay into one safetensors file."""
    kept: list[tuple[Path, int, str, dict[str, Any]]] = []
    for file in weight_files(folder):
        tensors, begin = header(file)
        for name, said in tensors.items():
            index = NUMBERED.search(name)
            if index is None or int(index[1]) < blocks:
                kept.append((file, begin, name, dict(said)))
    at, said_all = 0, {"__metadata__": {"format": "pt"}}
    for _, _, name, said in kept:
        first, last = said["data_offsets"]
        said_all[name] = {**said, "data_offsets": [at, at + last - first]}
        at += last - first
    head = json.dumps(said_all).encode()
    head += b" " * (-len(head) % 8)  # data begin at a multiple of eight bytes
    with into.open("wb") as written:
        written.write(len(head).to_bytes(8, "little") + head)
        for file, begin, _, said in kept:
            with file.open("rb") as read:
                read.seek(begin + said["data_offsets"][0])
                written.write(read.read(said["data_offsets"][1] - said["data_offsets"][0]))
