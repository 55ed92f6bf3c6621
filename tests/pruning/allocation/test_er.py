from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pruning.allocation import Layer, er

shapes = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=7)


def layers_of(shapes):
    return {str(index): Layer(shape, index // 2, "attention") for index, shape in enumerate(shapes)}


def test_by_hand():
    layers = layers_of([(10, 10), (20, 20)])
    # densities c * 20/100 and c * 40/400 over 100 and 400 weights: c * (20 + 40) = 250 kept, so 5/6 and 5/12
    assert er.allocate(layers, 0.5) == pytest.approx({"0": 1 / 6, "1": 7 / 12})


def test_a_layer_that_is_full_stays_dense_and_the_others_pay():
    layers = layers_of([(2, 2), (50, 50)])
    rates = er.allocate(layers, 0.5)
    assert rates["0"] == 0 and rates["1"] == pytest.approx(1252 / 2500)


@given(shapes, st.floats(0, 0.999))
def test_agrees_with_the_slow_version(plain, mean_of, shapes, sparsity):
    layers = layers_of(shapes)
    rates = er.allocate(layers, sparsity)
    assert mean_of(layers, rates) == pytest.approx(sparsity, abs=1e-9)
    kept = (1 - sparsity) * sum(rows * columns for rows, columns in shapes)
    expected = plain.erdos_renyi(shapes, kept)
    assert [1 - rate for rate in rates.values()] == pytest.approx(expected, abs=1e-6)


def test_equal_shapes_are_uniform():
    assert er.allocate(layers_of([(8, 4)] * 5), 0.3) == pytest.approx(dict.fromkeys("01234", 0.3))
