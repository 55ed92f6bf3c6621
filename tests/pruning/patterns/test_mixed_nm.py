from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.patterns import mixed_nm, nm


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 16), st.integers(1, 4), st.integers(0, 2**31), st.data())
def test_each_rate_is_its_own_nm(rows, groups, m, levels, seed, data):
    n = data.draw(st.integers(1, m))
    scores = torch.randint(levels, (rows, groups * m), generator=torch.Generator().manual_seed(seed)).float()
    keep = mixed_nm.choose(scores, 1 - n / m, m=m)
    assert torch.equal(keep, nm.choose(scores, 1 - n / m, n=n, m=m))
    assert (keep.view(rows, groups, m).sum(-1) == n).all()
    assert torch.equal(mixed_nm.choose(keep.float(), 1 - n / m, m=m), keep)


@pytest.mark.parametrize(
    ("sparsity", "kept", "hint"),
    [(0.55, "3.6", "0.5, 0.625"), (1.0, "0", "0.875"), (0.95, "0.4", "0.875"), (-0.125, "9", "0")],
)
def test_a_rate_between_two_is_refused(sparsity, kept, hint):
    with pytest.raises(Problem, match=f"would keep {kept} of every 8") as caught:
        mixed_nm.choose(torch.rand(2, 16), sparsity)
    assert caught.value.hint.endswith(hint)


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(Problem, match="12 inputs do not divide into groups of 8"):
        mixed_nm.choose(torch.rand(2, 12), 0.5)
    with pytest.raises(Problem, match="b: its 12 inputs do not divide into groups of 8"):
        mixed_nm.fit({"b": 0.5}, {"b": Layer((2, 12), 0, "attention")}, 0.5)


def layers(*shapes):
    return {str(i): Layer(shape, i, "attention") for i, shape in enumerate(shapes)}


def test_fit_by_hand():
    # zeros of 8 asked for: 3.2, 4, 4.8 of equal layers; the mean 4 is met by 3, 4, 5
    equal = layers(*[(8, 16)] * 3)
    assert mixed_nm.fit({"0": 0.4, "1": 0.5, "2": 0.6}, equal, 0.5) == {"0": 0.375, "1": 0.5, "2": 0.625}
    # the large layer's step is too far, the small ones' are not: 4.4 of 8 on average
    shapes = layers((8, 16), (8, 16), (48, 16))
    assert mixed_nm.fit(dict.fromkeys("012", 0.55), shapes, 0.55) == {"0": 0.625, "1": 0.625, "2": 0.5}


def test_fit_where_rounding_each_by_itself_misses_the_mean():
    # OWL's rounding gives 4 everywhere, 0.5 in place of 0.55
    rates = {str(i): rate for i, rate in enumerate((0.54, 0.55, 0.555, 0.555))}
    fitted = mixed_nm.fit(rates, layers(*[(8, 16)] * 4), 0.55)
    assert fitted == {"0": 0.5, "1": 0.5, "2": 0.625, "3": 0.625}
    assert [round(8 * rate) / 8 for rate in rates.values()] == [0.5] * 4


sizes = st.sampled_from([(8, 16), (8, 48), (24, 16), (40, 80)])


@given(st.lists(st.tuples(sizes, st.integers(0, 1000)), min_size=1, max_size=9), st.sampled_from([4, 8, 16]))
def test_fit_keeps_order_and_comes_as_near_as_a_shift_can(plain, drawn, m):
    known = layers(*[shape for shape, _ in drawn])
    exact = {str(i): Fraction(rate, 1000) for i, (_, rate) in enumerate(drawn)}
    weights = {name: layer.size for name, layer in known.items()}
    total = sum(weights.values())
    overall = sum(exact[name] * weights[name] for name in known) / total
    rates = {name: float(rate) for name, rate in exact.items()}
    if overall > Fraction(m - 1, m):
        with pytest.raises(Problem, match="keeps less than one of every"):
            mixed_nm.fit(rates, known, float(overall), m=m)
        return
    fitted = mixed_nm.fit(rates, known, float(overall), m=m)
    for one in known:
        zeros = fitted[one] * m
        assert zeros == int(zeros) and 0 <= zeros < m
        assert all(fitted[one] <= fitted[other] for other in known if exact[one] < exact[other])
    reached = sum(Fraction(fitted[name]) * weights[name] for name in known) / total
    assert abs(reached - overall) <= plain.nearest_shift(exact, weights, overall, m) + Fraction(1, 10**9)
    for name, layer in known.items():
        keep = mixed_nm.choose(torch.rand(layer.shape), fitted[name], m=m)
        assert int((~keep).sum()) == round(fitted[name] * layer.size)


@given(st.integers(0, 7), st.integers(1, 6))
def test_fit_leaves_rates_that_can_be_expressed(zeros, number):
    rates = dict.fromkeys((str(i) for i in range(number)), zeros / 8)
    assert mixed_nm.fit(rates, layers(*[(8, 16)] * number), zeros / 8) == rates
