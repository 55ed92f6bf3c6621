"""What a model's folder must hold before anything runs: a known config, all its weights, and its processor.

Only names and a few bytes are looked at, so that planning stays fast; that the weights are sound shows when they are
loaded. The files are those that transformers looks for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import rooms
from harness.problems import Problem
from harness.spec.fits import config_at, family_of

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
"""What follows a name of `WEIGHTS` where the weights are split over several files, which the index names."""
POINTER = b"version https://git-lfs"
"""How the stand-in of a file begins that Git LFS has not fetched."""
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
        Problem: The config cannot be read or is of no known family, or weights or the processor are not here.
    """
    config = config_at(folder)
    try:
        family = family_of(config)
    except Problem as problem:
        where = str(folder / "config.json")
        raise Problem(problem.what, where=where, nearest=problem.nearest, hint=problem.hint) from None
    for path in _weights(folder):
        _check_weights(path)
    for what, names in PROCESSORS[rooms.ROOMS["model"].method(family).constants["PROCESSOR"]].items():
        if not any((folder / name).is_file() for name in names):
            text = f"this model has no {what}: none of {', '.join(names)}"
            raise Problem(text, where=str(folder), hint="copy it from where the model comes from")
    return config


def _weights(folder: Path) -> list[Path]:
    """Returns the files of a model's weights, there or not: one, or those that an index names."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        if (index := folder / f"{name}{INDEX}").is_file():
            return [folder / part for part in _named(index)]
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
