from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def plain(slow):
    return slow("quantization")


@pytest.fixture
def sparse():
    """A sparse weight, its mask, and inputs [tokens, columns] that are correlated."""

    def make(rows=12, columns=32, sparsity=0.5, seed=0, tokens=400):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(rows, columns, generator=generator)
        keep = torch.rand(rows, columns, generator=generator) >= sparsity
        mixed = torch.eye(columns) + 0.3 * torch.randn(columns, columns, generator=generator)
        x = torch.randn(tokens, columns, generator=generator) @ mixed
        return weight * keep, keep, x

    return make
