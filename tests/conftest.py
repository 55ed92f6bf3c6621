from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parent / "reference"


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
