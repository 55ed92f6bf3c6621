from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import alphapruning
from harness.pruning.allocation._tail import alpha

rows = st.lists(st.integers(12, 40), min_size=2, max_size=5)


@given(rows, st.floats(0, 0.7), st.floats(0, 0.3), st.integers(0, 2**31), st.sampled_from(["mid", "peak"]))
def test_agrees_with_the_slow_version(plain, stack, weights_of, mean_of, rows, sparsity, epsilon, seed, xmin):
    layers = stack(rows)
    weights = weights_of(layers, seed)
    exponents = {name: alpha(weight, xmin) for name, weight in weights.items()}
    sizes = [layer.size for layer in layers.values()]
    for per in ("layer", "block"):
        each = exponents
        if per == "block":
            each = {
                n: (exponents[f"{at.block}.attention"] + exponents[f"{at.block}.up"]) / 2 for n, at in layers.items()
            }
        rates = alphapruning.allocate(layers, sparsity, weights, epsilon=epsilon, xmin=xmin, per=per)
        expected = plain.alphapruning(list(each.values()), sizes, sparsity, epsilon)
        assert list(rates.values()) == pytest.approx(expected, abs=1e-9)
        assert mean_of(layers, rates) == pytest.approx(sparsity, abs=1e-12)


def test_lighter_tails_are_sparser(stack, weights_of, blocks_of):
    layers = stack(5)
    weights = weights_of(layers)
    rates = blocks_of(layers, alphapruning.allocate(layers, 0.5, weights))
    exponents = [(alpha(weights[f"{b}.attention"], "peak") + alpha(weights[f"{b}.up"], "peak")) / 2 for b in range(5)]
    assert sorted(range(5), key=rates.__getitem__) == sorted(range(5), key=exponents.__getitem__)
    assert max(rates) / min(rates) == pytest.approx(1.3 / 0.7)


def test_without_epsilon_it_is_uniform(stack, weights_of):
    layers = stack([12, 30, 17])
    assert alphapruning.allocate(layers, 0.7, weights_of(layers), epsilon=0.0) == pytest.approx(
        dict.fromkeys(layers, 0.7)
    )


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_equal_spectra_are_uniform(stack, weights_of, epsilon):
    layers = stack([16, 16])
    one = weights_of(layers)["0.up"]
    rates = alphapruning.allocate(layers, 0.6, dict.fromkeys(layers, one), epsilon=epsilon)
    assert rates == pytest.approx(dict.fromkeys(layers, 0.6))


def test_too_wide_a_spread_names_the_layer_and_the_epsilon_that_fits(stack, weights_of):
    layers = stack(4)
    weights = weights_of(layers)
    with pytest.raises(Problem, match=r"\d\.attention: its sparsity would be 1\..*\n  an epsilon of at most") as raised:
        alphapruning.allocate(layers, 0.9, weights, epsilon=0.6)
    fits = float(str(raised.value).split("at most ")[1].split()[0])
    assert max(alphapruning.allocate(layers, 0.9, weights, epsilon=0.999 * fits).values()) == pytest.approx(1, abs=1e-3)


def test_a_spectrum_without_a_tail_names_the_layer(stack, weights_of):
    layers = stack(2)
    weights = weights_of(layers) | {"1.up": torch.zeros(24, 12)}
    with pytest.raises(Problem, match=r"1\.up: its spectrum has no tail"):
        alphapruning.allocate(layers, 0.5, weights)
