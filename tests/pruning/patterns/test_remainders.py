from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from harness.pruning.patterns._remainders import rounded
from harness.pruning.patterns._smallest import count

layers = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 60), st.integers(1, 9)), min_size=2, max_size=8)


@given(layers)
def test_agrees_with_the_slow_version(plain, drawn):
    rates = {str(i): Fraction(percent, 100) for i, (percent, _, _) in enumerate(drawn)}
    units = {str(i): (number, weights) for i, (_, number, weights) in enumerate(drawn)}
    size = sum(number * weights for number, weights in units.values())
    overall = sum(rates[name] * number * weights for name, (number, weights) in units.items()) / size
    zeros = (overall * size).__floor__()
    got = rounded({name: float(rate) for name, rate in rates.items()}, units, float(overall))
    counts = {name: count(units[name][0], rate) for name, rate in got.items()}
    if len(set(rates.values())) == 1:
        assert counts == {name: (rate * units[name][0]).__floor__() for name, rate in rates.items()}
        return
    assert counts == plain.largest_remainders(rates, units, zeros)
    reached = sum(counts[name] * weights for name, (_, weights) in units.items())
    assert zeros - max(weights for _, weights in units.values()) < reached <= zeros
    assert all(abs(counts[name] - rate * units[name][0]) < 1 for name, rate in rates.items())


def test_by_hand_the_floor_of_a_narrow_model_is_made_up_for():
    # eight layers of 64 columns from 63% to 77%: rounded down they have 69.1% zeros
    rates = {str(i): 0.63 + 0.02 * i for i in range(8)}
    units = dict.fromkeys(rates, (64, 64))
    down = sum(count(64, rate) for rate in rates.values()) / 512
    fitted = rounded(rates, units, 0.7)
    assert down < 0.6934 and 0.7 - 1 / 512 < sum(fitted.values()) / 8 <= 0.7


def test_rates_that_ask_for_more_than_the_overall_sparsity_are_rounded_down():
    fitted = rounded({"a": 0.59, "b": 0.79}, {"a": (10, 1), "b": (10, 1)}, 0.5)
    assert fitted == {"a": 0.5, "b": 0.7}


def test_of_equal_remainders_the_first_layers_is_rounded_up_whatever_the_binary_fractions():
    rates, units = {"0": 0.02, "1": 0.3, "2": 0.01}, {"0": (5, 8), "1": (27, 1), "2": (10, 1)}
    assert rounded(rates, units, 9 / 77) == {"0": 0.0, "1": 9 / 27, "2": 0.0}
