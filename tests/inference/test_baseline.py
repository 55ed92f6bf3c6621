"""What speed-ups are over by default, which no machine needs a GPU to say."""

from __future__ import annotations

import pytest

from harness import rooms
from harness.inference.baseline import DENSE, DENSE_GPU, baseline
from harness.problems import Problem


@pytest.mark.parametrize(
    ("engines", "expected"),
    [
        (["packed"], DENSE),
        (["torch_dense", "torch_int8"], DENSE),
        (["torch_24"], DENSE_GPU),
        (["torch_dense", "triton_bitmask:precision=int8"], DENSE_GPU),
    ],
)
def test_on_a_gpu_the_dense_model_computes_in_16_bits(engines, expected):
    assert baseline(engines) == expected == str(rooms.resolve("engine", expected))


def test_an_unknown_engine_is_named():
    with pytest.raises(Problem, match="unknown engine 'pakced'"):
        baseline(["pakced"])
