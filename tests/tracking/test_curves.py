from __future__ import annotations

import pytest

from harness.tracking import curves


@pytest.mark.parametrize("length", [0, 1, 199, 200, 201, 100_000])
def test_points_are_evenly_spaced_distinct_and_within(length):
    kept = list(curves.evenly(length))
    assert len(kept) == len(set(kept)) == min(length, curves.POINTS)
    assert not kept or (kept[0], kept[-1]) == (0, length - 1)


def test_a_value_that_a_line_of_a_curve_lacks_is_none(tmp_path):
    path = tmp_path / curves.FILE
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "kl": 1.5}\n')
    assert curves.read(path) == {"step": [1, 2], "loss": [2.0, None], "kl": [None, 1.5]}


def test_thinning_keeps_the_ends_and_six_digits():
    thin = curves.thin({"step": list(range(1, 1001)), "loss": [1 / 3 + n for n in range(1000)]})
    assert len(thin["step"]) == len(thin["loss"]) == curves.POINTS
    assert (thin["step"][0], thin["step"][-1]) == (1, 1000)
    assert (thin["loss"][0], thin["loss"][-1]) == (0.333333, 999.333)
