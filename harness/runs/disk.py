"""Whether results can be written, before anything runs; and telling a full disk from other errors when one is met."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.problems import Problem

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (*FULL, errno.EACCES, errno.EPERM, errno.EROFS)
"""What a person can mend: a full disk, and a place that may not be written."""
ELSEWHERE = "mend that, or choose another place with --results DIR"
SAID = ("No space left on device", "os error 28", "Disk quota exceeded")


def check_writable(folder: Path) -> None:
    """Makes sure that something can be written in a folder, or in what there is of the path to it; leaves nothing.

    Raises:
        Problem: It may not be written, or its disk is full.
    """
    try:
        with tempfile.TemporaryFile(dir=existing(folder)) as file:
            file.write(b"x")
    except OSError as error:
        raise Problem(f"nothing can be written here: {error.strerror}", where=str(folder), hint=ELSEWHERE) from error


def existing(folder: Path) -> Path:
    """Returns the folder, or of those above it the first that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


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
        hint="free some space (`harness clean` shows what may go; `harness run --lean` keeps no weights that are done"
        " with) and run again: it goes on from its last checkpoint",
    )


def free(root: Path) -> int:
    """Returns the free bytes of the disk that holds a folder, which need not exist yet."""
    return shutil.disk_usage(existing(root)).free


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
