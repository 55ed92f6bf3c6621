from __future__ import annotations

import pytest

from harness.problems import Problem
from harness.pruning.ramps import chain, cubic, one_shot


def test_one_shot_is_one_walk():
    assert one_shot.targets(0.7) == [0.7]


def test_the_cubic_ramp_is_losas():
    # LoSA's released schedule at S = 0.7 and T = 5 (papers/losa.md, 2.2)
    assert cubic.targets(0.7) == pytest.approx([0.3416, 0.5488, 0.6552, 0.6944, 0.7], abs=1e-12)
    assert cubic.targets(0.7, steps=2, start=0.5) == pytest.approx([0.675, 0.7])


def test_a_chain_stops_on_the_way():
    assert chain.targets(0.7) == [0.5, 0.7]
    with pytest.raises(Problem, match=r"chain through 0\.5 cannot end at 0\.4"):
        chain.targets(0.4)


def test_a_ramp_cannot_fall():
    with pytest.raises(Problem, match=r"a ramp from 0\.6 cannot end at 0\.5"):
        cubic.targets(0.5, start=0.6)
