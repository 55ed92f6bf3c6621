from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import owl


@given(st.integers(2, 7), st.floats(0.2, 0.8), st.floats(0.01, 0.1), st.integers(0, 2**31))
def test_agrees_with_the_slow_version(plain, stack, weights_of, norms_of, blocks_of, blocks, sparsity, width, seed):
    layers = stack(blocks)
    weights, norms = weights_of(layers, seed), norms_of(layers, seed)
    scores = [[] for _ in range(blocks)]
    for name, layer in layers.items():
        scores[layer.block] += (weights[name].abs() * norms[name]).flatten().tolist()
    shares = owl.outliers(layers, weights, norms, 3.0)
    assume(min(shares.values()) < max(shares.values()))
    rates = owl.allocate(layers, sparsity, weights, norms, width=width, outlier=3.0)
    assert blocks_of(layers, rates) == pytest.approx(plain.owl(scores, sparsity, width, 3.0), abs=1e-9)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=6), st.floats(0.2, 0.8), st.integers(0, 2**31))
def test_the_sparsity_is_kept_with_unlike_blocks(stack, weights_of, norms_of, mean_of, blocks_of, rows, sparsity, seed):
    layers = stack(rows)
    weights, norms = weights_of(layers, seed), norms_of(layers, seed)
    rates = owl.allocate(layers, sparsity, weights, norms, outlier=2.0)
    assert mean_of(layers, rates) == pytest.approx(sparsity, abs=1e-12)
    shares, by_block = list(owl.outliers(layers, weights, norms, 2.0).values()), blocks_of(layers, rates)
    if max(shares) > min(shares):
        assert max(by_block) - min(by_block) == pytest.approx(0.16)
    for one in range(len(rows)):
        for other in range(len(rows)):
            assert shares[one] >= shares[other] or by_block[one] > by_block[other], "more outliers, yet sparser"


def test_without_width_it_is_uniform(stack, weights_of, norms_of):
    layers = stack(4)
    rates = owl.allocate(layers, 0.7, weights_of(layers), norms_of(layers), width=0.0, outlier=3.0)
    assert set(rates.values()) == {0.7}


def test_blocks_with_equal_shares_are_uniform(stack):
    layers = stack(3)
    weights = {name: torch.ones(layer.shape) for name, layer in layers.items()}
    for weight in weights.values():
        weight[0, 0] = 1000
    rates = owl.allocate(layers, 0.4, weights, {name: torch.ones(12) for name in layers})
    assert set(rates.values()) == {0.4}


def test_no_outlier_anywhere_is_a_problem(stack):
    layers = stack(2)
    weights, norms = (
        {name: torch.ones(layer.shape) for name, layer in layers.items()},
        dict.fromkeys(layers, torch.ones(12)),
    )
    with pytest.raises(Problem, match="no score is above 5 times the mean of its block"):
        owl.allocate(layers, 0.5, weights, norms)


def test_a_rate_below_zero_becomes_a_hundredth_and_above_one_a_problem(stack, weights_of, norms_of):
    layers = stack(4)
    given = weights_of(layers), norms_of(layers)
    free = owl.allocate(layers, 0.5, *given, width=0.08, outlier=3.0)
    low = owl.allocate(layers, 0.05, *given, width=0.08, outlier=3.0)
    for name, rate in free.items():
        assert low[name] == pytest.approx(rate - 0.45 if rate > 0.45 else 0.01)
    assert 0.01 in low.values()
    with pytest.raises(Problem, match=r"its sparsity would be 1\.\d+, .*\n  a smaller width"):
        owl.allocate(layers, 0.95, *given, width=0.3, outlier=3.0)


def test_nothing_asked_for_is_nothing_pruned(stack, weights_of, norms_of):
    layers = stack(2)
    assert set(owl.allocate(layers, 0.0, weights_of(layers), norms_of(layers)).values()) == {0.0}
