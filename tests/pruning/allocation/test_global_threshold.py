from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.pruning.allocation import global_threshold
from harness.pruning.patterns import unstructured


@given(st.integers(1, 4), st.floats(0, 0.999), st.integers(0, 2**31), st.booleans())
def test_the_rates_prune_by_one_threshold(stack, blocks, sparsity, seed, tied):
    layers, generator = stack(blocks), torch.Generator().manual_seed(seed)
    scores = {name: torch.randn(layer.shape, generator=generator).abs() for name, layer in layers.items()}
    if tied:
        scores = {name: (each * 4).round() for name, each in scores.items()}
    rates = global_threshold.allocate(layers, sparsity, scores)
    pool = torch.cat([each.flatten() for each in scores.values()])
    keep = torch.ones(len(pool), dtype=torch.bool)
    keep[pool.argsort(stable=True)[: int(len(pool) * sparsity + 1e-6)]] = False
    masks = [unstructured.choose(scores[name], rates[name], group="matrix").flatten() for name in layers]
    assert torch.equal(torch.cat(masks), keep)


def test_a_layer_may_lose_everything(stack):
    layers = stack(2)
    scores = {name: torch.full(layer.shape, float(layer.block)) for name, layer in layers.items()}
    rates = global_threshold.allocate(layers, 0.5, scores)
    assert rates == {"0.attention": 1.0, "0.up": 1.0, "1.attention": 0.0, "1.up": 0.0}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(stack, dtype):
    layers = stack(2)
    scores = {name: torch.arange(layer.size).view(layer.shape).to(dtype) for name, layer in layers.items()}
    rates = global_threshold.allocate(layers, 0.25, scores)
    assert sum(rates[name] * layer.size for name, layer in layers.items()) == pytest.approx(240)
