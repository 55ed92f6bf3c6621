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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gpuu", "'gpuu' is no device"),
        ("cuda:99", "there is no 'cuda:99' on this machine"),
        ("mps", "nothing is computed on 'mps' here, only on cpu and cuda"),
        ("meta", "nothing is computed on 'meta' here"),
        ("xpu:0", "nothing is computed on 'xpu:0' here"),
    ],
)
def test_a_device_that_cannot_be_computed_on_is_a_problem(monkeypatch, name, said):
    monkeypatch.setenv("HARNESS_DEVICE", name)
    with pytest.raises(Problem, match=said) as caught:
        device()
    assert caught.value.where == "HARNESS_DEVICE" and caught.value.hint
