from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.problems import Problem
from harness.tuning import batches as module
from harness.tuning.batches import batches, rows_of, steps_for, steps_for_tokens


@given(rows=st.integers(1, 40), size=st.integers(1, 12), seed=st.integers(0, 99), epoch=st.integers(0, 3))
def test_an_epoch_visits_every_row_once(rows, size, seed, epoch):
    per_epoch = -(-rows // size)
    seen = [rows_of(epoch * per_epoch + step, rows, size, seed) for step in range(per_epoch)]
    assert sorted(row for step in seen for row in step) == list(range(rows))
    assert all(len(s) == size for s in seen[:-1]) and 1 <= len(seen[-1]) <= size


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [rows_of(step, 50, 50, seed) for step, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(order) for order in orders}) == 3
    assert rows_of(1, 50, 50, 0) == orders[1]


def test_an_order_is_drawn_once_an_epoch(monkeypatch):
    drawn = []
    draw = module.numpy.random.default_rng
    monkeypatch.setattr(module.numpy.random, "default_rng", lambda seed: drawn.append(seed) or draw(seed))
    for step in range(6):
        rows_of(step, 31, 11, 1234)
    assert drawn == [[1234, 0], [1234, 1]]


def test_epochs_become_steps_by_rounding_the_last_batch_up():
    assert steps_for(1, 10, 4) == 3
    assert steps_for(2, 10, 4) == 6
    assert steps_for(0.5, 8, 2) == 2
    assert steps_for(0.01, 8, 8) == 1


def test_micro_batches_split_a_step():
    of = batches(list("abcdefghij"), lambda part: {"rows": part}, batch_size=4, micro_batch=3, seed=0)
    assert [[len(m["rows"]) for m in of(step)] for step in range(4)] == [[3, 1], [3, 1], [2], [3, 1]]
    flat = [x for step in range(3) for m in of(step) for x in m["rows"]]
    assert sorted(flat) == list("abcdefghij")


def test_a_budget_of_tokens_needs_windows_of_one_length():
    windows = [{"input_ids": [1] * 8}] * 20
    assert [steps_for_tokens(tokens, windows, 2) for tokens in (1, 16, 17, 160)] == [1, 1, 2, 10]
    odd = [*windows[:4], {"input_ids": [1] * 7}, *windows]
    with pytest.raises(Problem, match="windows of one length: row 4 has 7 tokens, row 0 8"):
        steps_for_tokens(16, odd, 2)
    with pytest.raises(Problem, match="windows of one length\n"):
        steps_for_tokens(16, [{"labels": [1]}] * 3, 2)


def test_windows_that_say_their_length_are_not_looked_at():
    class Unread(list):
        length = 8

        def __getitem__(self, index):
            raise AssertionError("a window was read")

    assert [steps_for_tokens(tokens, Unread(), 2) for tokens in (1, 16, 17, 45 * 10**9)] == [1, 1, 2, 2812500000]
