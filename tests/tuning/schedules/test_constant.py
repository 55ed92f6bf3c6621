from __future__ import annotations

from harness.tuning.schedules import constant


def test_it_rises_and_stays():
    assert [constant.factor(step, 5, 2) for step in range(6)] == [0, 0.5, 1, 1, 1, 1]
