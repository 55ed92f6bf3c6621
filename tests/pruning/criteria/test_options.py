from __future__ import annotations

import pytest

from harness.problems import Problem
from harness.rooms import resolve


@pytest.mark.parametrize("text", ["random:seed=-1", "ria:power=-0.5", "gblm:alpha=-1", "sparsegpt:damping=-0.01"])
def test_what_makes_no_sense_is_refused(text):
    with pytest.raises(Problem, match="should be at least 0"):
        resolve("criterion", text)
