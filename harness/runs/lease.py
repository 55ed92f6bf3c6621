"""Who works on a stage: a small file that one process creates, keeps warm, and removes.

Leases are numbered. A process that finds none, or a stale one, creates the file with the next number, which the system
lets exactly one process do; it then looks again and withdraws if it is not alone. Nothing is taken from a live holder:

- on the same machine since the same boot, the holder lives if its process does (id and start time);
- otherwise, while the file's time, refreshed every `BEAT` seconds, is younger than `STALE` seconds. Machines that share
  a store must agree on the time to well within that;
- a lease that says nothing, its creator being killed before it could write, lives for `BEAT` seconds.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import psutil

BEAT = 5.0
STALE = 60.0


class Lease:
    """A lease that this process holds; a thread keeps it warm until `release`."""

    def __init__(self, path: Path):
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease {path.parent.name}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                os.utime(self._path)
            except FileNotFoundError:  # taken over: `held` tells, and this thread has nobody to tell
                return
            except OSError:  # a share that is away for a moment: the next beat may reach it
                continue

    def held(self) -> bool:
        """Returns whether the lease is still ours: a machine that slept may have lost it to another."""
        return self._path.is_file() and _leases(self._path.parent) == [self._path]

    def release(self) -> None:
        """Gives the stage back."""
        self._over.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)


def take(folder: Path) -> Lease | None:
    """Takes the lease of a folder, or returns None: somebody else has it, or was a moment faster.

    Raises:
        OSError: The folder is gone, or nothing can be written there.
    """
    stale = _leases(folder)
    if any(_alive(path) for path in stale):
        return None
    number = max(map(_number, stale), default=0) + 1
    mine = folder / f"lease-{number}.json"
    try:
        handle = os.open(mine, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(_me(), file)
        there = set(_leases(folder))
    except OSError:
        mine.unlink(missing_ok=True)
        raise
    if mine not in there or not there <= {mine, *stale}:
        mine.unlink(missing_ok=True)
        return None
    for path in stale:
        path.unlink(missing_ok=True)
    return Lease(mine)


def holder(folder: Path) -> str | None:
    """Returns who holds a live lease of a folder, "process 71 on lab-3", or None."""
    for path in _leases(folder):
        if _alive(path):
            who = _read(path)
            return f"process {who['pid']} on {who['host']}" if who else "another process"
    return None


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("lease-"))


def _leases(folder: Path) -> list[Path]:
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted((folder / name for name in names if re.fullmatch(r"lease-\d+\.json", name)), key=_number)


def _read(path: Path) -> dict[str, Any]:
    """Returns a lease's content; empty while its creator is still writing it, or when it was just released."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _alive(path: Path) -> bool:
    who = _read(path)
    if who and who["machine"] == _machine():
        return _runs(who["pid"], who["started"])
    try:
        return time.time() - path.stat().st_mtime < (STALE if who else BEAT)
    except FileNotFoundError:
        return False


def _runs(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 2
    except psutil.NoSuchProcess:
        return False


def _me() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "pid": process.pid,
        "started": process.create_time(),
        "host": socket.gethostname(),
        "machine": _machine(),
    }


def _machine() -> str:
    """Returns what names this boot of this machine; process ids mean the same only within it (and its container)."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    parts = (boot.read_text().strip() if boot.is_file() else "", os.readlink(space) if space.is_symlink() else "")
    return "/".join((socket.gethostname(), *parts))
