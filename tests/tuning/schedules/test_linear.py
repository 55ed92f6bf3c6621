from __future__ import annotations

import pytest

from harness.tuning.schedules import linear


def test_it_rises_from_zero_and_falls_to_zero():
    assert [linear.factor(step, 6, 2) for step in range(7)] == [0, 0.5, 1, 0.75, 0.5, 0.25, 0]


def test_without_warmup_the_first_update_has_the_peak_rate():
    assert linear.factor(0, 4, 0) == 1


def test_it_is_the_schedule_of_transformers():
    torch = pytest.importorskip("torch")
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, 3, 11)
    for step in range(12):
        assert linear.factor(step, 11, 3) == theirs.get_last_lr()[0]
        optimizer.step()
        theirs.step()


def test_a_run_that_is_all_warmup_ends_below_the_peak():
    assert [linear.factor(step, 3, 3) for step in range(3)] == [0, 1 / 3, 2 / 3]
