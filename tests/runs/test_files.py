from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from harness.runs import files

KILLED = """
import os, signal, sys
from pathlib import Path
from harness.runs import files
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
files.replace(Path(sys.argv[1]), "new")
"""


@pytest.fixture
def left(tmp_path):
    """What a process that was killed while it replaced a file of a result left there."""
    path = tmp_path / "artifacts" / "tune" / "net-0123456789" / "freed"
    files.replace(path, "old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    (found,) = (each for each in path.parent.iterdir() if each != path)
    assert path.read_text() == "old" and found.read_text() == "new"
    return found


def _age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_what_a_killed_process_had_half_written_is_abandoned(left, tmp_path):
    _age(left, files.ABANDONED + 1)
    assert files.abandoned(tmp_path) == [left]


def test_what_may_still_be_written_is_not(left, tmp_path):
    _age(left, files.ABANDONED / 2)
    assert files.abandoned(tmp_path) == []


def test_nothing_else_is_abandoned(tmp_path):
    work = tmp_path / "tune" / "net-01234567.partial" / "scratch" / "step.01234567.partial"
    work.mkdir(parents=True)
    others = [work / name for name in ("step-2.pt", "model.partial", "model.0123456.partial", ".01234567.partial")]
    for path in others:
        path.write_text("x")
        _age(path, 1e6)
    assert files.abandoned(tmp_path) == []
