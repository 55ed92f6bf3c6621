from __future__ import annotations

import pytest
import torch

from harness.device import device
from harness.problems import Problem


def test_the_variable_decides(monkeypatch):
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    assert device() == torch.device("cpu")


def test_without_it_the_first_gpu_or_the_processor(monkeypatch):
    monkeypatch.delenv("HARNESS_DEVICE", raising=False)
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda t=there: t)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        assert device().type == name


@pytest.mark.parametrize("name", ["gpuu", "cuda:99"])
def test_a_device_that_is_not_there_is_a_problem(monkeypatch, name):
    monkeypatch.setenv("HARNESS_DEVICE", name)
    with pytest.raises(Problem, match=name):
        device()
