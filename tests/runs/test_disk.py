from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.problems import Problem
from harness.runs import disk


def _from(cause: Exception) -> Exception:
    try:
        try:
            raise cause
        except Exception as error:
            raise Problem("the checkpoint could not be written") from error
    except Problem as problem:
        return problem


@pytest.mark.parametrize("wrap", [lambda error: error, _from])
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        Exception("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_known_whoever_met_it(error, wrap, tmp_path):
    assert disk.full(wrap(error), tmp_path)


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), ValueError("write"), Problem("no")])
def test_other_errors_are_not(error, tmp_path):
    assert not disk.full(error, tmp_path)


def test_a_failed_write_counts_where_nothing_is_free(tmp_path, monkeypatch):
    error = RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
    assert not disk.full(error, tmp_path)
    monkeypatch.setattr(disk, "free", lambda root: 100)
    assert disk.full(error, tmp_path) and not disk.full(RuntimeError("mat1 and mat2 shapes"), tmp_path)


def test_free_of_a_folder_that_is_not_there_yet(tmp_path):
    assert disk.free(tmp_path / "a" / "b") > 0


def test_the_problem_says_what_there_is_and_what_was_needed():
    text = str(disk.problem(Path("."), 3 * 2**20, 512 * 2**20))
    assert "MiB free" in text and "3.0 MiB written" in text and "512.0 MiB" in text and "run again" in text


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    disk.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_place_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch, code):
    def refuse(dir):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", refuse)
    with pytest.raises(Problem, match=os.strerror(code)) as caught:
        disk.check_writable(tmp_path / "results")
    assert str(tmp_path / "results") in str(caught.value) and "--results" in str(caught.value)


def test_a_file_where_a_folder_should_be_is_a_problem(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(Problem, match="nothing can be written here"):
        disk.check_writable(tmp_path / "results" / "artifacts")
