from __future__ import annotations

import math

from pytest import approx

from harness.tuning.schedules import cosine


def test_quarter_points_of_the_wave():
    wave = [cosine.factor(step, 6, 2) for step in range(7)]
    quarter = (1 + math.cos(math.pi / 4)) / 2
    assert wave == approx([0, 0.5, 1, quarter, 0.5, 1 - quarter, 0])


def test_the_floor_is_what_is_left():
    assert cosine.factor(8, 8, 0, floor=0.1) == approx(0.1)
    assert cosine.factor(4, 8, 0, floor=0.1) == approx(0.55)
