from __future__ import annotations

import pytest

from harness.problems import Problem
from harness.tuning.phases import Phase, by_phase, phases


def test_without_a_ramp_there_is_one_phase():
    assert phases(7) == [Phase(0, 7, None)]


def test_phases_have_equal_shares():
    assert phases(10, [0.3, 0.5, 0.6]) == [Phase(0, 3, 0.3), Phase(3, 7, 0.5), Phase(7, 10, 0.6)]
    assert phases(10, [0.5], last=0.2) == [Phase(0, 10, 0.5)]


def test_the_last_may_have_its_own_as_in_losa():
    found = phases(1250, [0.1, 0.2, 0.3, 0.4, 0.5], last=0.6)
    assert [phase.end - phase.start for phase in found] == [125, 125, 125, 125, 750]


def test_a_phase_without_a_step_is_a_problem():
    with pytest.raises(Problem, match="2 steps are too few for 3 prunings"):
        phases(2, [0.1, 0.2, 0.3])
    with pytest.raises(Problem, match="too few"):
        phases(10, [0.1, 0.2], last=1.0)


def test_the_schedule_begins_anew_in_every_phase():
    rate = by_phase(phases(10, [0.1, 0.2], last=0.6), lambda steps: lambda step: (step, steps))
    assert [rate(step) for step in (0, 3, 4, 9)] == [(0, 4), (3, 4), (0, 6), (5, 6)]
