"""`--out` where nothing can be written: every command on one model says so before it loads anything."""

from __future__ import annotations

import errno
import os

import pytest

from harness import models, oneoff
from harness.runs import disk

COMMANDS = {
    "prune": ("--criterion", "magnitude", "--sparsity", 0.5),
    "tune": ("--data", "prose", "--lr", 1e-3, "--steps", 1),
    "quantize": (),
    "measure": ("--engine", "torch_csr"),
    "export": ("--format", "bitmask"),
}


@pytest.fixture
def refused(harness, tiny_models, tmp_path, monkeypatch):
    """A function from a command and `--out` to the error output of a refusal before any weight is read."""
    models.save(*tiny_models.tiny("llama"), tmp_path / "model")
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the model was loaded"))

    def call(command, out):
        before = sorted(tmp_path.iterdir())
        status, _, err = harness(command, tmp_path / "model", "--out", out, *COMMANDS[command])
        assert status == 2 and "--out" in err and "Traceback" not in err, err
        assert [path for path in sorted(tmp_path.iterdir()) if path.name != "cache"] == before
        return err

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_below_a_file(refused, tmp_path, command):
    (tmp_path / "file").write_text("mine")
    assert f"{tmp_path / 'file' / 'deep' / 'out'}: nothing can be written here" in refused(
        command, tmp_path / "file" / "deep" / "out"
    )
    assert "this is a file" in refused(command, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "said"), [("a" * 300, "too long"), ("a/" * 3000, "too long"), ("a\0b", "null"), ("~nobody-here/a", "home")]
)
def test_where_no_folder_can_be(refused, tmp_path, command, name, said):
    assert said in refused(command, name if name.startswith("~") else tmp_path / name)


def test_a_name_as_long_as_can_be(tmp_path):
    with oneoff.becoming(tmp_path / ("é" * 127)) as (result, _):
        (result / "file").write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["é" * 127]


@pytest.mark.parametrize("command", COMMANDS)
def test_on_a_disk_that_is_read_only(refused, tmp_path, monkeypatch, command):
    def read_only(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", read_only)
    assert "nothing can be written here: Read-only file system" in refused(command, tmp_path / "out")
