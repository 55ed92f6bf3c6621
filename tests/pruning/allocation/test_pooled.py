from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.allocation import _pooled

number = st.one_of(st.integers(-3, 3).map(float), st.floats(width=32, allow_nan=False, allow_infinity=False))
lists = st.lists(st.lists(number, min_size=1, max_size=20), min_size=1, max_size=5)


@given(lists, st.data())
def test_agrees_with_sorting_everything(plain, scores, data):
    k = data.draw(st.integers(0, sum(map(len, scores))))
    tensors = {str(at): torch.tensor(each) for at, each in enumerate(scores)}
    assert list(_pooled.smallest(tensors.__getitem__, tensors, k).values()) == plain.pooled(scores, k)


def test_pieces_make_no_difference(monkeypatch):
    scores = {"a": torch.randn(50, 7), "b": torch.randn(30, 11).half().float(), "c": torch.zeros(9, 9)}
    whole = _pooled.smallest(scores.__getitem__, scores, 300)
    monkeypatch.setattr(_pooled, "_PIECE", 13)
    assert _pooled.smallest(scores.__getitem__, scores, 300) == whole and sum(whole.values()) == 300


def test_one_layer_is_looked_up_at_a_time():
    open_now, most = set(), 0

    def lookup(name):
        nonlocal most
        open_now.clear()
        open_now.add(name)
        most += 1
        return torch.arange(10.0)

    assert _pooled.smallest(lookup, "ab", 3) == {"a": 2, "b": 1}
    assert most == 6


def test_scores_that_are_not_finite_name_the_layer():
    scores = {"fine": torch.ones(3), "odd": torch.tensor([1.0, float("nan")])}
    with pytest.raises(Problem, match="odd: its scores are not finite"):
        _pooled.smallest(scores.__getitem__, scores, 2)


def test_no_score_is_looked_up_where_nothing_goes():
    assert _pooled.smallest({}.__getitem__, ["a", "b"], 0) == {"a": 0, "b": 0}
