"""Freeing the disk of a result's weights: what is left is all that a record and a plan read.

Of a large safetensors file the header stays, its tensors without their data, so that a record made again is the same to
a byte; an empty file `freed` says that this was meant. A stage that has to read the weights has them computed again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from harness.problems import Problem
from harness.runs import disk, files, shapes
from harness.runs.work import DONE

FREED = "freed"
LARGE = 2**24
"""A file of at most so many bytes is no weight on the disk, and is hashed in a few milliseconds."""


def is_freed(folder: Path) -> bool:
    """Returns whether the weights of a result were freed."""
    return (folder / FREED).is_file()


def takes(name: str, size: int) -> bool:
    """Returns whether a file of a result, by its name and whole size in bytes, is one that freeing takes."""
    return size > LARGE and name.endswith(".safetensors")


def held(folder: Path) -> dict[Path, int]:
    """Returns the weights of a finished result that are there, and the bytes of each.

    Raises:
        OSError, ValueError, KeyError: What the result says of itself cannot be read.
    """
    said = json.loads((folder / DONE).read_text(encoding="utf8"))["files"]
    paths = [folder / name for name, about in said.items() if takes(name, about["size"])]
    return {path: size for path in paths if (size := path.stat().st_size) > LARGE}


def free(folder: Path) -> int:
    """Frees the weights of a finished result; returns the bytes.

    A process that has mapped them keeps what it has, but where the disk is full: then they are cut where they lie. A
    kill on the way leaves a result that counts as freed.

    Raises:
        OSError: It cannot be written.
        Problem: One of its files is no safetensors file.
    """
    there = held(folder)
    headers = {path: _header(path) for path in there}
    if headers:
        files.replace(folder / FREED, "")
    for path, header in headers.items():
        try:
            files.replace(path, header)
        except OSError as error:
            if error.errno not in disk.FULL:
                raise
            os.truncate(path, len(header))
    return sum(there.values()) - sum(map(len, headers.values()))


def problem(folder: Path) -> Problem:
    """Returns the problem of somebody who wants weights that were freed."""
    hint = "a run that has to read them computes them again; or remove this folder, and run its experiment"
    return Problem("the weights of this result were freed", where=str(folder), hint=hint)


def _header(file: Path) -> bytes:
    """Returns the beginning of a safetensors file, up to its data."""
    _, begin = shapes.header(file)
    with file.open("rb") as opened:
        return opened.read(begin)
