from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def samples():
    """The module of the made-up experiment."""
    spec = importlib.util.spec_from_file_location("tracking_samples", Path(__file__).with_name("samples.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory):
    """One SQLite store for all tests: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def results(tmp_path):
    """An empty results folder."""
    return tmp_path / "results"


@pytest.fixture
def entry(samples, tmp_path):
    """The made-up experiment at scale tiny."""
    return samples.entry(tmp_path / "experiments")
