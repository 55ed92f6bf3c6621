"""What a model's folder must hold before anything runs: a known config, all its weights, and its processor.

Only names, lengths and a few bytes are looked at, so that planning stays fast; that the weights are sound shows when
they are loaded. The files are those that transformers looks for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import exported, rooms
from harness.problems import Problem
from harness.runs import freeing
from harness.spec.fits import WIDTHS, config_at, family_of

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
"""What follows a name of `WEIGHTS` where the weights are split over several files, which the index names."""
POINTER = b"version https://git-lfs"
"""How the stand-in of a file begins that Git LFS has not fetched."""
SIZES = (
    *WIDTHS,
    *("vocab_size", "num_hidden_layers", "num_layers", "n_layers", "encoder_layers", "decoder_layers"),
    *("num_attention_heads", "num_heads", "n_heads", "max_position_embeddings", "max_seq_len", "n_positions"),
)
"""The keys of a `config.json` that hold how large a model is."""
LONGEST_HEADER = 100_000_000
"""Bytes from which on safetensors, too, takes a header for a damaged one."""
TOKENIZER = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
EXTRACTOR = ("preprocessor_config.json", "processor_config.json")
PROCESSORS = {
    "AutoTokenizer": {"tokenizer": TOKENIZER},
    "AutoImageProcessor": {"image processor": EXTRACTOR},
    "AutoProcessor": {"feature extractor": EXTRACTOR, "tokenizer": TOKENIZER},
}
"""What a family's `PROCESSOR` is made of: one of these files each."""


def check(folder: Path) -> Mapping[str, Any]:
    """Returns the config of a model's folder, which can be loaded as far as its files tell.

    Raises:
        Problem: The config cannot be read or is of no known family, weights or the processor are not here, or the
            weights were freed.
    """
    if freeing.is_freed(folder):
        raise freeing.problem(folder)
    config = config_at(folder)
    try:
        family = family_of(config)
    except Problem as problem:
        raise problem.at(str(folder / "config.json")) from None
    _check_sizes(config, folder / "config.json")
    for path in _weights(folder):
        _check_weights(path)
    check_processor(folder, rooms.ROOMS["model"].method(family).constants["PROCESSOR"])
    return config


def check_processor(folder: Path, kind: str) -> None:
    """Makes sure that a folder holds a processor; without its files, transformers may make one up.

    Args:
        folder: A model's folder.
        kind: The `PROCESSOR` of its family.

    Raises:
        Problem: A part of it is not here.
    """
    for what, names in PROCESSORS[kind].items():
        if not any((folder / name).is_file() for name in names):
            text = f"this model has no {what}: none of {', '.join(names)}"
            raise Problem(text, where=str(folder), hint="copy it from where the model comes from")


def _check_sizes(config: Mapping[str, Any], path: Path) -> None:
    for key in SIZES:
        value = config.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise Problem(f"{key} should be a whole number, at least 1, not {value!r}", where=str(path))


def _weights(folder: Path) -> list[Path]:
    """Returns the files of a model's weights, there or not: one, or those that an index names."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        if (index := folder / f"{name}{INDEX}").is_file():
            return [folder / part for part in _named(index)]
    if exported.is_packed(folder):
        expand = f"harness export {folder} --format {exported.PLAIN} --out DIR"
        hint = f"take the model it was made from, or expand it: {expand}"
        raise Problem("this model is packed, which engines read and nothing else", where=str(folder), hint=hint)
    names = ", ".join(f"{name}, {name}{INDEX}" for name in WEIGHTS)
    raise Problem(f"this model has no weights: none of {names}", where=str(folder))


def _named(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Problem(f"this index of weights cannot be read: {error}", where=str(index)) from error


def _check_weights(path: Path) -> None:
    if not path.is_file():
        raise Problem("this part of the model's weights is not here", where=str(path), hint="its index names it")
    with path.open("rb") as file:
        start = file.read(len(POINTER))
    if start == POINTER:
        raise Problem("these weights are a pointer of Git LFS, not the file", where=str(path), hint="git lfs pull")
    if not start:
        raise Problem("these weights are an empty file", where=str(path))
    whole, found = _length(path), path.stat().st_size
    if whole is not None and found != whole:
        what = f"these weights are {found:,} bytes long and should be {whole:,}"
        raise Problem(what, where=str(path), hint="copy the file again: it was cut off")


def _length(path: Path) -> int | None:
    """Returns how long a file of safetensors says it is; None where it is none, or says nothing that can be read."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size < LONGEST_HEADER else b""
    try:
        ends = (each["data_offsets"][1] for name, each in json.loads(header).items() if name != "__metadata__")
        return 8 + size + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
