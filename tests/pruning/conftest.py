from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

REFERENCE = Path(__file__).parents[1] / "reference"


def _load(name):
    spec = importlib.util.spec_from_file_location(f"reference_{name}", REFERENCE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def reference():
    """The slow plain versions."""
    return _load("pruning")


@pytest.fixture(scope="session")
def tiny_models():
    return _load("tiny_models")


@pytest.fixture
def correlated():
    """(rows, columns, seed) -> weight [rows, columns] and correlated inputs [tokens, columns] of uneven size."""

    def make(rows, columns, seed=0, tokens=None):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(rows, columns, generator=generator)
        mix = torch.eye(columns) + torch.randn(columns, columns, generator=generator) / columns**0.5
        scale = torch.rand(columns, generator=generator) + 0.2
        return weight, torch.randn(tokens or 4 * columns, columns, generator=generator) @ mix * scale

    return make
