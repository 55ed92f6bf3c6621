"""What speed-ups are over by default, which no machine needs a GPU to say."""

from __future__ import annotations

import pytest

from harness import rooms
from harness.inference.baseline import DENSE, DENSE_GPU, baseline, own_dense, torch_dense
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


def test_our_own_dense_engine_differs_in_the_format_alone():
    asked = rooms.resolve("engine", "packed:format=slot,precision=int8,head=int8")
    own = rooms.resolve("engine", own_dense(str(asked)))
    assert own.options == asked.options | {"format": "dense"}
    assert own_dense(str(own)) == str(own)
    assert own_dense("torch_int8") is None


@pytest.mark.parametrize(
    ("against", "engines", "expected"),
    [
        ("packed:format=dense", ["packed"], DENSE),
        ("torch_dense:dtype=bfloat16", ["packed"], "torch_dense:dtype=bfloat16"),
        ("triton_bitmask", ["torch_24"], DENSE_GPU),
    ],
)
def test_the_dense_engine_of_torch_is_found_whatever_speed_ups_are_over(against, engines, expected):
    assert torch_dense(against, engines) == expected


def test_an_unknown_engine_is_named():
    with pytest.raises(Problem, match="unknown engine 'pakced'"):
        baseline(["pakced"])
