from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "reference" / "solvers.py"


@pytest.fixture(scope="session")
def plain():
    """The slow plain versions of the solvers."""
    spec = importlib.util.spec_from_file_location("reference_solvers", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
