"""New method: a share worked by hand."""

from __future__ import annotations

from harness.metrics import new_method


def test_a_case_worked_by_hand():
    """One of two is equal, and none where the space after it counts."""
    rows = [{"prediction": "a ", "reference": "a"}, {"prediction": "b", "reference": "c"}]
    assert new_method.score(rows)["new_method"].value == 50.0
    assert new_method.score(rows, strip=False)["new_method"].value == 0.0
