from __future__ import annotations

import pytest
import torch

from harness.pruning.allocation import Layer


@pytest.fixture(scope="session")
def plain(slow):
    """The slow plain versions."""
    return slow("allocation")


@pytest.fixture(scope="session")
def stack():
    """Layers of `blocks` equal blocks, or of blocks whose second layers have the given numbers of rows."""

    def make(blocks):
        rows = [24] * blocks if isinstance(blocks, int) else blocks
        layers = {}
        for block, out in enumerate(rows):
            layers[f"{block}.attention"] = Layer((16, 12), block, "attention")
            layers[f"{block}.up"] = Layer((out, 12), block, "feed_forward")
        return layers

    return make


@pytest.fixture(scope="session")
def weights_of():
    """Heavy-tailed weights for the layers, which differ from block to block."""

    def make(layers, seed=0):
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for name, layer in layers.items():
            weight = torch.randn(layer.shape, generator=generator)
            found[name] = weight * weight.abs() ** (0.3 * (layer.block % 4))
        return found

    return make


@pytest.fixture(scope="session")
def norms_of():
    def make(layers, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return {name: torch.rand(layer.shape[1], generator=generator) + 0.1 for name, layer in layers.items()}

    return make


@pytest.fixture(scope="session")
def kernels_of():
    """Kernels [n, n] of features that drift from block to block, by steps of different size."""

    def make(blocks, seed=2, sequences=10, change=0.7):
        generator = torch.Generator().manual_seed(seed)
        now, found = torch.randn(sequences, 40, generator=generator), {}
        for block in range(blocks):
            found[block] = now @ now.T
            now = now + change * (1 + block % 3) * torch.randn(sequences, 40, generator=generator)
        return found

    return make


@pytest.fixture(scope="session")
def mean_of():
    """Mean sparsity over all weights."""

    def make(layers, rates):
        assert rates.keys() == layers.keys()
        return sum(rates[name] * layer.size for name, layer in layers.items()) / sum(
            layer.size for layer in layers.values()
        )

    return make


@pytest.fixture(scope="session")
def blocks_of():
    """The rate of each block in order, once it is sure that its layers share it."""

    def make(layers, rates):
        found = {}
        for name, layer in layers.items():
            assert found.setdefault(layer.block, rates[name]) == rates[name]
        return [found[block] for block in sorted(found)]

    return make
