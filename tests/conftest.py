from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import settings

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
