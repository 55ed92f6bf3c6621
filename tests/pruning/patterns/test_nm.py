from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import Layer
from harness.pruning.patterns import nm


def test_by_hand_n_is_what_stays():
    scores = torch.tensor([[4.0, 1.0, 3.0, 2.0, 5.0, 8.0, 7.0, 6.0]])
    assert nm.choose(scores, 0.5, n=2, m=4).tolist() == [[True, False, True, False, False, True, True, False]]
    assert nm.choose(scores, 0.75, n=1, m=4).tolist() == [[True, False, False, False, False, True, False, False]]
    assert nm.choose(scores, 0.25, n=3, m=4).tolist() == [[True, False, True, True, False, True, True, True]]


def test_of_equal_scores_the_first_columns_go():
    assert nm.choose(torch.ones(1, 4), 0.5, n=2, m=4).tolist() == [[False, False, True, True]]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 16), st.integers(1, 4), st.integers(0, 2**31), st.data())
def test_agrees_with_the_slow_version(reference, rows, groups, m, levels, seed, data):
    n = data.draw(st.integers(1, m))
    scores = torch.randint(levels, (rows, groups * m), generator=torch.Generator().manual_seed(seed)).float()
    keep = nm.choose(scores, 1 - n / m, n=n, m=m)
    assert torch.equal(keep, reference.nm(scores, n, m))
    assert (keep.view(rows, groups, m).sum(-1) == n).all()
    assert torch.equal(nm.choose(keep.float(), 1 - n / m, n=n, m=m), keep)


@pytest.mark.parametrize(("n", "m"), [(16, 32), (16, 64), (1, 64), (3, 7)])
def test_any_n_and_m(n, m):
    scores = torch.rand(8, 3 * m, generator=torch.Generator().manual_seed(0))
    keep = nm.choose(scores, 1 - n / m, n=n, m=m)
    groups, kept = scores.view(8, 3, m), keep.view(8, 3, m)
    assert (kept.sum(-1) == n).all()
    lowest = groups.masked_fill(~kept, 2).amin(-1)
    assert (lowest > groups.masked_fill(kept, -1).amax(-1)).all()


@pytest.mark.parametrize(
    ("options", "sparsity", "width", "message"),
    [
        ({"n": 2, "m": 4}, 0.5, 6, "6 inputs do not divide into groups of 4"),
        ({"n": 5, "m": 4}, 0.5, 8, "5:4 cannot keep"),
        ({"n": 0, "m": 4}, 1.0, 8, "0:4 cannot keep"),
        ({"n": 2, "m": 4}, 0.6, 8, "2:4 is a sparsity of 0.5, not 0.6"),
    ],
)
def test_what_cannot_be_is_refused(options, sparsity, width, message):
    with pytest.raises(Problem, match=message):
        nm.choose(torch.rand(2, width), sparsity, **options)


def test_the_group_sizes_that_fit_are_named():
    with pytest.raises(Problem, match="do not divide into groups of 7") as caught:
        nm.choose(torch.rand(1, 40), 1 - 3 / 7, n=3, m=7)
    assert caught.value.hint == "at this width M may be 2, 4, 5, 8, 10, 20, 40"
    with pytest.raises(Problem) as caught:
        nm.choose(torch.rand(1, 67), 0.5, n=2, m=4)
    assert caught.value.hint == "67 has no divisor up to 64"


def layers(*widths):
    return {f"layer{i}": Layer((4, width), i, "attention") for i, width in enumerate(widths)}


def test_fit_leaves_the_one_rate_there_is():
    rates = {"layer0": 0.5, "layer1": 0.5}
    assert nm.fit(rates, layers(8, 16), 0.5) == rates


def test_fit_refuses_uneven_rates_before_anything_is_pruned():
    with pytest.raises(Problem, match=r"layer1: 2:4 is a sparsity of 0.5, not 0.52") as caught:
        nm.fit({"layer0": 0.5, "layer1": 0.52}, layers(8, 8), 0.51)
    assert "mixed_nm:m=4" in caught.value.hint


def test_fit_names_the_layer_that_does_not_divide():
    with pytest.raises(Problem, match=r"layer1: its 10 inputs do not divide into groups of 4"):
        nm.fit({"layer0": 0.5, "layer1": 0.5}, layers(8, 10), 0.5)
