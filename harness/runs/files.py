"""Files: those of a result and their sha256, bringing them to the disk, and replacing one whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

ABANDONED = 60.0
"""Seconds without a byte after which what `replace` writes is taken for left by a process that was killed."""
_HALF_WRITTEN = re.compile(r".+\.[0-9a-f]{8}\.partial")


def inside(folder: Path) -> list[Path]:
    """Returns all files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the sha256 and the size in bytes of every file below a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256(path), "size": path.stat().st_size}
        for path in inside(folder)
    }


def sha256(path: Path) -> str:
    """Returns the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(folder: Path) -> None:
    """Brings a folder's files, and the folders that name them, to the disk."""
    for path in inside(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for inner in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(inner)


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: what was there stays when the disk is full or the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")  # two processes may write one file
    try:
        with partial.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def abandoned(folder: Path) -> list[Path]:
    """Returns what processes that were killed in the middle of `replace` left anywhere below a folder."""
    found = [path for path in inside(folder) if _HALF_WRITTEN.fullmatch(path.name)]
    return [path for path in found if _quiet_for(path) > ABANDONED]


def _quiet_for(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # it has become what it was to replace
        return 0.0
