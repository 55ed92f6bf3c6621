from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import er, er_plus


@given(st.integers(2, 6), st.floats(0, 0.7))
def test_the_last_layer_is_dense_and_the_sparsity_kept(stack, mean_of, blocks, sparsity):
    layers = stack(blocks)
    rates = er_plus.allocate(layers, sparsity)
    assert list(rates) == list(layers) and rates[list(layers)[-1]] == 0
    assert mean_of(layers, rates) == pytest.approx(sparsity, abs=1e-9)


def test_the_others_are_as_er_would_have_them(stack):
    layers = stack(3)
    *others, _ = layers
    rates = er_plus.allocate(layers, 0.5)
    rest = {name: layers[name] for name in others}
    total, left = sum(layer.size for layer in layers.values()), sum(layer.size for layer in rest.values())
    assert {name: rates[name] for name in others} == pytest.approx(er.allocate(rest, 0.5 * total / left))


def test_where_the_last_layer_is_more_than_may_stay(stack):
    layers = stack([24, 100])
    highest = 1 - 1200 / (2 * 192 + 24 * 12 + 1200)
    with pytest.raises(
        Problem, match=rf"1\.up: a dense last layer allows a sparsity of at most {highest:.4g}, not 0\.9"
    ):
        er_plus.allocate(layers, 0.9)
    assert er_plus.allocate(layers, highest)["0.up"] == pytest.approx(1)


def test_one_layer_alone_cannot_be_pruned(stack):
    layers = {"0.up": stack(1)["0.up"]}
    assert er_plus.allocate(layers, 0.0) == {"0.up": 0.0}
    with pytest.raises(Problem, match=r"at most 0, not 0\.5"):
        er_plus.allocate(layers, 0.5)
