"""New method: sparsities worked by hand."""

from __future__ import annotations

from harness.pruning.allocation import Layer, new_method


def test_a_case_worked_by_hand():
    """Every layer has the sparsity that was asked for, whatever its size."""
    layers = {"a": Layer((2, 8), 0, "attention"), "b": Layer((4, 8), 1, "feed_forward")}
    assert new_method.allocate(layers, 0.75) == {"a": 0.75, "b": 0.75}
