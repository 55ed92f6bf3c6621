from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_models():
    path = Path(__file__).parents[1] / "reference" / "tiny_models.py"
    spec = importlib.util.spec_from_file_location("reference_tiny_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
