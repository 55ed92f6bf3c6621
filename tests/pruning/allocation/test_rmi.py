from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from harness.problems import Problem
from harness.pruning.allocation import rmi

rows = st.lists(st.integers(1, 60), min_size=2, max_size=9)


def redundancy(kernels):
    return rmi.redundancy([rmi._unit(block, kernel) for block, kernel in kernels.items()]).double().numpy()


@given(st.integers(2, 8), st.integers(2, 12), st.integers(0, 2**31))
def test_the_similarity_agrees_with_the_slow_version(plain, kernels_of, blocks, sequences, seed):
    kernels = kernels_of(blocks, seed, sequences)
    expected = plain.redundancies([kernel.numpy() for kernel in kernels.values()])
    assert redundancy(kernels) == pytest.approx(expected, rel=1e-4)


@given(rows, st.floats(0.05, 0.95), st.integers(0, 2**31), st.booleans())
def test_mean_and_bounds(stack, kernels_of, mean_of, blocks_of, rows, sparsity, seed, exact):
    layers = stack(rows)
    rates = rmi.allocate(layers, sparsity, kernels_of(len(rows), seed), exact=exact)
    assert mean_of(layers, rates) == pytest.approx(sparsity, abs=1e-9 if exact else 1e-7)
    d = 0.01 if sparsity <= 0.5 else 0.02 if sparsity <= 0.6 else 0.03
    assert all(abs(rate - sparsity) <= d + 1e-9 for rate in blocks_of(layers, rates))


@given(rows, st.floats(0.05, 0.95), st.integers(0, 2**31), st.floats(0.1, 3))
def test_the_exact_optimum_is_linear_programmings(stack, kernels_of, blocks_of, rows, sparsity, seed, beta):
    layers, kernels = stack(rows), kernels_of(len(rows), seed)
    sizes = np.array([192 + 12 * out for out in rows]) / 1000
    importance = np.exp(-beta * redundancy(kernels))
    low, high = max(sparsity - 0.02, 0), min(sparsity + 0.02, 1)
    best = optimize.linprog(
        importance * sizes, A_eq=[sizes], b_eq=[sparsity * sizes.sum()], bounds=[(low, high)] * len(rows)
    )
    rates = blocks_of(layers, rmi.allocate(layers, sparsity, kernels, beta=beta, spread=0.02, exact=True))
    assert importance * sizes @ rates == pytest.approx(best.fun, abs=1e-6)


def test_redundant_blocks_are_sparser(stack, kernels_of, blocks_of):
    layers, kernels = stack(8), kernels_of(8)
    order = np.argsort(redundancy(kernels))
    for exact in (True, False):
        rates = blocks_of(layers, rmi.allocate(layers, 0.7, kernels, exact=exact))
        assert rates[order[-1]] > 0.7 > rates[order[0]]
    exact = blocks_of(layers, rmi.allocate(layers, 0.7, kernels, exact=True))
    assert sorted(exact) == pytest.approx([0.67] * 4 + [0.73] * 4)


def test_beta_0_and_no_spread_are_uniform(stack, kernels_of):
    layers, kernels = stack(6), kernels_of(6)
    for options in ({"beta": 0.0}, {"spread": 0.0}, {"spread": 0.0, "exact": True}):
        rates = rmi.allocate(layers, 0.7, kernels, **options)
        assert rates == pytest.approx(dict.fromkeys(layers, 0.7), abs=1e-9), options


def test_the_dtype_of_the_kernels_makes_no_difference(stack, kernels_of):
    layers, kernels = stack(5), kernels_of(5)
    doubles = {block: kernel.double() for block, kernel in kernels.items()}
    assert rmi.allocate(layers, 0.7, kernels) == rmi.allocate(layers, 0.7, doubles)


def test_one_block_and_the_ends_of_the_scale(stack, kernels_of):
    assert set(rmi.allocate(stack(1), 0.7, {}).values()) == {0.7}
    layers, kernels = stack(4), kernels_of(4)
    assert set(rmi.allocate(layers, 0.0, kernels, exact=True).values()) == {0.0}
    assert rmi.allocate(layers, 0.0, kernels) == pytest.approx(dict.fromkeys(layers, 0.0), abs=1e-9)
    high = rmi.allocate(layers, 0.99, kernels, exact=True)
    assert max(high.values()) == 1 and math.fsum(high.values()) / len(high) == pytest.approx(0.99)


def test_sequences_that_do_not_differ_are_a_problem(stack, kernels_of):
    for same in (torch.ones(10, 10), torch.zeros(10, 10), torch.ones(1, 1), torch.full((3, 3), torch.nan)):
        with pytest.raises(Problem, match="the inputs of block 1 do not differ between its"):
            rmi.allocate(stack(3), 0.7, kernels_of(3) | {1: same})


def test_a_solver_that_fails_is_a_problem(stack, kernels_of, monkeypatch):
    failed = optimize.OptimizeResult(success=False, message="it went astray", x=np.zeros(3))
    monkeypatch.setattr(rmi.optimize, "minimize", lambda *args, **kwargs: failed)
    with pytest.raises(Problem, match="SLSQP finds no rates: it went astray"):
        rmi.allocate(stack(3), 0.7, kernels_of(3))
