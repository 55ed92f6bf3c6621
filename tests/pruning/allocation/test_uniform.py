from __future__ import annotations

from harness.pruning.allocation import uniform


def test_every_layer_gets_the_sparsity():
    assert uniform.allocate({"a": (2, 3), "b": (4, 4)}, 0.7) == {"a": 0.7, "b": 0.7}
