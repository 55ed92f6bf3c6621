from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import lamp


@given(st.integers(1, 4), st.floats(0, 0.99), st.integers(0, 2**31))
def test_agrees_with_the_slow_version(plain, stack, weights_of, blocks, sparsity, seed):
    layers = stack(blocks)
    weights = weights_of(layers, seed)
    scores = [
        [float(torch.tensor(s)) for s in each] for each in plain.lamp([w.flatten().tolist() for w in weights.values()])
    ]
    total = sum(layer.size for layer in layers.values())
    zeros = plain.pooled(scores, int(total * sparsity + 1e-6))
    rates = lamp.allocate(layers, sparsity, weights)
    assert [rates[name] * layer.size for name, layer in layers.items()] == pytest.approx(zeros)


def test_the_scale_of_a_matrix_does_not_matter(stack, weights_of):
    layers = stack(3)
    weights = weights_of(layers)
    scaled = {name: weight * 2.0 ** (10 * at) for at, (name, weight) in enumerate(weights.items())}
    assert lamp.allocate(layers, 0.6, scaled) == lamp.allocate(layers, 0.6, weights)


def test_no_layer_is_emptied_before_all_are(stack, weights_of):
    layers = stack(3)
    total = sum(layer.size for layer in layers.values())
    rates = lamp.allocate(layers, 1 - 6 / total, weights_of(layers))
    assert [round((1 - rates[name]) * layer.size) for name, layer in layers.items()] == [1] * 6


def test_zeros_go_first_and_make_no_nan(stack, weights_of):
    layers = stack(2)
    weights = weights_of(layers) | {"1.up": torch.zeros(24, 12)}
    rates = lamp.allocate(layers, 288 / 960, weights)
    assert rates == {"0.attention": 0, "0.up": 0, "1.attention": 0, "1.up": 1}
    with pytest.raises(Problem, match=r"0\.up: its scores are not finite"):
        lamp.allocate(layers, 0.5, weights | {"0.up": torch.full((24, 12), torch.nan)})
