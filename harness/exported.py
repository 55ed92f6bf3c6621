"""A folder that `harness export` wrote: its form, and what it says of itself in `export.json`.

    version    of this description
    format, precision, group    as `harness export` was asked for them
    head       int8 where the output layer, and embeddings tied to it, were rounded, too
    left_out   what is lost of a quantised model (`inference.left_out`)
    xxh3       the XXH3 sum, 128 bits, of every other file

Packed folders are checked against it whenever they are loaded, every byte: no sum is remembered, so damage that leaves
a file's size and time alone is found, too. It is computed beside the reading, about as fast as memory is read: a sha256
takes ten times as long, more than all the rest of a load, and guards no better what lies in one folder with its sum.

Weights are used where they were checked: their files stay mapped (`inference.mapped`), so nothing may be written into
them while a model of theirs lives. They may be deleted, or others put in their place, as `harness export` does.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from harness.problems import Problem

FILE = "export.json"
VERSION = 2
PACKED, REST = "packed.safetensors", "rest.safetensors"
"""The packed linears, and all other weights, each once."""
PLAIN, GRAPH = "hf-dense", "onnx"
"""The forms that are not packed."""
AUTO = "auto"
"""Packed, each linear in the format that should multiply it fastest."""
_READ = (PACKED, REST, "config.json")
"""What a packed model cannot be loaded without."""
_THREADS = 2
"""Two files of a packed folder are large."""


def is_packed(folder: Path | None) -> bool:
    """Says whether a folder holds a model in one of our packed formats.

    Raises:
        Problem: What it says of itself is damaged, or of another version.
    """
    return is_exported(folder) and _says_packed(described(folder))


def _says_packed(said: Mapping[str, Any]) -> bool:
    return said["format"] not in (PLAIN, GRAPH)


def is_exported(folder: Path | None) -> bool:
    """Says whether a folder was written by `export`, in whatever form."""
    return folder is not None and (folder / FILE).is_file()


def describe(folder: Path, said: Mapping[str, Any]) -> None:
    """Writes what a folder says of itself, with the sums of the files that are in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / FILE)
    sums = {path.relative_to(folder).as_posix(): _sum(content(path)) for path in files}
    text = json.dumps({"version": VERSION, **said, "xxh3": sums}, indent=1)
    (folder / FILE).write_text(text + "\n", encoding="utf8")


def described(folder: Path) -> dict[str, Any]:
    """Returns what an exported folder says of itself.

    Raises:
        Problem: It is damaged, or of another version; folders from before there were versions have none.
    """
    path = folder / FILE
    try:
        said = dict(json.loads(path.read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if said.get("version") != VERSION:
        what = f"an export of version {said.get('version', 'none')}; this harness reads version {VERSION}"
        raise Problem(what, where=str(path), hint="export the model again")
    texts, sums = (said.get(name) for name in ("format", "precision")), said.get("xxh3")
    if not all(isinstance(text, str) for text in texts) or not isinstance(sums, dict):
        raise _damaged(path, "it lacks format, precision or xxh3")
    left = said.get("left_out", {})
    if not isinstance(left, dict) or not all(isinstance(count, int) for count in left.values()):
        raise _damaged(path, "left_out is no count of layers by name")
    return said


@contextlib.contextmanager
def verifying(folder: Path) -> Iterator[tuple[dict[str, Any], Mapping[str, mmap.mmap | bytes]]]:
    """Compares an exported folder's files with their sums while they are read.

    What is read may be used when this ends, as long as nobody writes into the files. A problem that a damaged file led
    to meanwhile is replaced by its cause.

    Yields:
        What the folder says of itself, and by name what its files hold, as it is compared.

    Raises:
        Problem: A file is not here, or is not what was written; or as `described`.
    """
    said = described(folder)
    sums, wanted = said["xxh3"], _READ if _says_packed(said) else ()
    if lost := [name for name in (*wanted, *sums) if name not in sums or not (folder / name).is_file()]:
        hint = "copy it from where it was exported to, or export the model again"
        raise Problem(f"{lost[0]} is not here, or has no sum in {FILE}", where=str(folder), hint=hint)
    contents = {name: content(folder / name) for name in sums}
    largest_first = sorted(sums, key=lambda name: -len(contents[name]))
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda name: _sum(contents[name]), largest_first)
        try:
            yield said, contents
        finally:
            for name, sum in zip(largest_first, found, strict=True):
                if sum != sums[name]:
                    hint = "copy it again from where it was exported to, or export the model again"
                    raise Problem("this file is not what was exported", where=str(folder / name), hint=hint)


def content(path: Path) -> mmap.mmap | bytes:
    """Returns what a file holds, mapped; where it is written to, it changes in this process alone.

    The system is told to read all of it ahead: else threads that read here and there wait for each other's pages. One
    that cannot be read ends the process that uses it.

    Raises:
        Problem: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:  # which no system maps
                return b""
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            whole.madvise(mmap.MADV_WILLNEED)
            return whole
    except OSError as error:
        raise Problem(f"this file cannot be read: {error.strerror}", where=str(path)) from error


def _sum(whole: mmap.mmap | bytes) -> str:
    """Returns a sum computed at one go: between two parts a thread would wait for the interpreter."""
    return xxhash.xxh3_128_hexdigest(whole)


def _damaged(path: Path, why: str) -> Problem:
    what = f"this description of an exported model cannot be read: {why}"
    return Problem(what, where=str(path), hint="export the model again")
