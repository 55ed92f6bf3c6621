from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import Layer, atp, uniform

shares = st.floats(-1, 1)


def test_equation_10(stack, blocks_of):
    layers = stack(32)
    rates = blocks_of(layers, atp.allocate(layers, 0.7, beta=0.018))
    first = 0.7 - 0.018 * 31 / 2
    assert rates == [first + i * 0.018 for i in range(32)]
    assert rates[0] == pytest.approx(0.421) and rates[-1] == pytest.approx(0.979)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=40), st.floats(0.01, 0.99), shares)
def test_an_arithmetic_progression_of_the_right_mean(stack, mean_of, blocks_of, rows, sparsity, share):
    layers = stack(rows)
    low, high = atp.limits(layers, sparsity)
    beta = share * (high if share > 0 else -low)
    rates = atp.allocate(layers, sparsity, beta=beta)
    assert mean_of(layers, rates) == pytest.approx(sparsity, abs=1e-12)
    by_block = blocks_of(layers, rates)
    assert [b - a for a, b in itertools.pairwise(by_block)] == pytest.approx([beta] * (len(rows) - 1))


@given(st.integers(2, 80), st.floats(0.01, 0.99))
def test_the_papers_limit_for_equal_blocks(stack, blocks, sparsity):
    highest = min(2 * sparsity / (blocks - 1), 2 * (1 - sparsity) / (blocks - 1))
    assert atp.limits(stack(blocks), sparsity) == (-highest, highest)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=20), st.floats(0.01, 0.99))
def test_the_limits_are_where_a_rate_meets_its_end(stack, blocks_of, rows, sparsity):
    layers = stack(rows)
    for limit in atp.limits(layers, sparsity):
        rates = blocks_of(layers, atp.allocate(layers, sparsity, beta=limit))
        assert min(rates) == pytest.approx(0, abs=1e-9) or max(rates) == pytest.approx(1, abs=1e-9)
        with pytest.raises(Problem, match=r"takes rates out of \[0, 1\].*\n  it may be from -"):
            atp.allocate(layers, sparsity, beta=limit * 1.001)


def test_the_refusal_says_what_is_possible(stack):
    with pytest.raises(Problem) as raised:
        atp.allocate(stack(32), 0.7, beta=0.02)
    assert str(raised.value) == (
        "beta=0.02 takes rates out of [0, 1] at sparsity 0.7 over 32 blocks\n"
        "  it may be from -0.01935483871 to 0.01935483871"
    )
    assert atp.allocate(stack(32), 0.7, beta=0.01935483871)


@given(st.integers(1, 40), st.floats(0, 0.99))
def test_beta_0_is_uniform(stack, blocks, sparsity):
    layers = stack(blocks)
    assert atp.allocate(layers, sparsity, beta=0.0) == uniform.allocate(layers, sparsity)


def test_a_negative_beta_turns_the_order_round(stack, blocks_of):
    layers = stack(6)
    rising, falling = (blocks_of(layers, atp.allocate(layers, 0.6, beta=beta)) for beta in (0.05, -0.05))
    assert rising == sorted(rising) and falling == pytest.approx(rising[::-1])


def test_one_block_has_no_progression(stack):
    layers = stack(1)
    assert atp.limits(layers, 0.5) == (-math.inf, math.inf)
    assert set(atp.allocate(layers, 0.5, beta=0.1).values()) == {0.5}


@given(st.permutations(range(5)), st.floats(0.2, 0.8))
def test_order_is_the_blocks_and_gaps_are_none(order, sparsity):
    layers = {str(block): Layer((4, 4), 3 * block + 2, "attention") for block in order}
    assume(order != sorted(order))
    rates = atp.allocate(layers, sparsity, beta=0.05)
    assert [rates[str(block)] for block in range(5)] == pytest.approx([sparsity + 0.05 * i for i in range(-2, 3)])


def test_at_no_sparsity_only_0_is_possible(stack):
    assert set(atp.allocate(stack(4), 0.0, beta=0.0).values()) == {0.0}
    with pytest.raises(Problem, match="from -0 to 0"):
        atp.allocate(stack(4), 0.0, beta=0.01)
