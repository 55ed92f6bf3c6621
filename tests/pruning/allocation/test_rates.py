from __future__ import annotations

import math

import pytest

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.allocation._rates import block_sizes, by_block, checked

LAYERS = {
    "late": Layer((2, 3), 7, "attention"),
    "early": Layer((4, 5), 2, "attention"),
    "early.too": Layer((1, 5), 2, "feed_forward"),
}


def test_blocks_stand_in_execution_order_with_their_weights():
    assert list(block_sizes(LAYERS).items()) == [(2, 25), (7, 6)]


def test_every_layer_gets_its_blocks_rate():
    assert by_block(LAYERS, {2: 0.25, 7: 0.5}, "") == {"late": 0.5, "early": 0.25, "early.too": 0.25}


@pytest.mark.parametrize("rate", [-0.01, 1.01, math.nan, math.inf])
def test_a_rate_that_is_none_names_the_layer_and_what_to_do(rate):
    with pytest.raises(Problem, match=r"late: its sparsity would be .*\n  turn it down"):
        checked({"early": 0.5, "late": rate}, "turn it down")


def test_what_arithmetic_leaves_over_is_put_back():
    assert checked({"a": -1e-17, "b": 1 + 2e-16, "c": 0.3}, "") == {"a": 0.0, "b": 1.0, "c": 0.3}
