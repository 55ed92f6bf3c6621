from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from harness import cli

REFERENCE = Path(__file__).parent / "reference"

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: more threads than cores wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("harness", deadline=None, derandomize=True)  # every run draws the same examples
settings.load_profile("harness")


@pytest.fixture(scope="session")
def slow():
    """Loads a file of slow plain versions, or of helpers, by its name in tests/reference."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"reference_{name}", REFERENCE / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def tiny_models(slow):
    return slow("tiny_models")


@pytest.fixture
def harness(monkeypatch, capsys, tmp_path):
    """Runs a command in this process, on the CPU, without hub or mirror; returns status, output and error output."""
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HARNESS_MIRROR", raising=False)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return call
