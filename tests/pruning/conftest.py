from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def reference(slow):
    """The slow plain versions."""
    return slow("pruning")


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
