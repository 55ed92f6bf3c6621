"""Telling a full disk from other errors, whichever library met it, and saying what there is and what was needed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from harness.problems import Problem

FULL = (errno.ENOSPC, errno.EDQUOT)
SAID = ("No space left on device", "os error 28", "Disk quota exceeded")


def full(error: BaseException, root: Path) -> bool:
    """Returns whether an error, or one that it came from, is a full disk.

    torch's writer says only that a write failed; that counts when less than a MiB is free.
    """
    for each in _chain(error):
        if getattr(each, "errno", None) in FULL or any(said in str(each) for said in SAID):
            return True
        if isinstance(each, RuntimeError) and "write" in str(each) and free(root) < 2**20:
            return True
    return False


def problem(root: Path, written: int, needs: int) -> Problem:
    """Returns the problem of a full disk.

    Args:
        root: A folder on that disk.
        written: Bytes the stage has written.
        needs: Bytes of the model it reads; 0 where that is not known.
    """
    about = f"; a result is about as large as its model, {_mib(needs)}, its checkpoints are larger" if needs else ""
    return Problem(
        f"the disk is full: {_mib(free(root))} free, {_mib(written)} written by this stage so far{about}",
        where=str(root),
        hint="free some space and run again: it goes on from its last checkpoint",
    )


def free(root: Path) -> int:
    """Returns the free bytes of the disk that holds a folder, which need not exist yet."""
    return shutil.disk_usage(next(p for p in (root.absolute(), *root.absolute().parents) if p.exists())).free


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
