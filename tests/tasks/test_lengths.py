from __future__ import annotations

import numpy
import pytest

from harness.problems import Problem
from harness.tasks._lengths import fitting
from harness.tasks._windows import Windows


def test_windows_are_checked_at_once_and_stay_windows(llama):
    windows = Windows(numpy.arange(4096, dtype=numpy.uint16), 1024)
    assert fitting(windows, llama[0]) is windows
    with pytest.raises(Problem, match="windows of 1025 tokens are longer than the 1024 that the model's decoder reads"):
        fitting(Windows(numpy.arange(4096, dtype=numpy.uint16), 1025), llama[0])


def test_other_examples_are_checked_when_they_are_read(llama):
    features = fitting([{"input_ids": [1] * 1024}, {"input_ids": [1] * 1025}], llama[0])
    assert len(features[0]["input_ids"]) == 1024
    with pytest.raises(Problem, match="row 1: the input_ids have 1025 tokens"):
        features[1]
