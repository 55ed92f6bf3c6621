"""New method: targets worked by hand."""

from __future__ import annotations

from harness.pruning.ramps import new_method


def test_a_case_worked_by_hand():
    """Three equal steps to 75%, or one."""
    assert new_method.targets(0.75, steps=3) == [0.25, 0.5, 0.75]
    assert new_method.targets(0.75, steps=1) == [0.75]
