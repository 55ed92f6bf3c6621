"""An engine measured in a process of its own: its runs and its agreement come back."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from harness.inference import alone, measure
from harness.inference.agreement import reference
from harness.inference.greedy import generate
from harness.inference.measure import DENSE, Setting
from harness.inference.prompts import prompts
from harness.problems import Problem


def test_runs_come_back_from_the_other_process(tiny_models):
    model, _ = tiny_models.tiny("llama")
    setting = Setting(batch=2, prompt=6, tokens=4, repeats=2, warmup=1)
    inputs = prompts(model, 2, 6, seed=0)
    runs, agreed = alone.measure(model, "torch_csr", setting, 1, reference(model, inputs, 4))
    assert len(runs) == 3 and agreed["greedy_equal"]
    assert torch.equal(runs[0].tokens, generate(model, inputs, 4).tokens)
    assert all(run.first > 0 and run.rest > 0 for run in runs)
    assert not any(each.is_shared() for each in model.parameters())  # the baseline's memory is as the engines'


def test_a_peer_is_measured_there_and_said_to_be(tiny_models, monkeypatch):
    model, _ = tiny_models.tiny("llama")
    seen = []

    def elsewhere(model, engine, setting, threads, dense):
        seen.append((engine, threads))
        inputs = prompts(model, setting.batch, setting.prompt, seed=setting.seed)
        run = generate(model, inputs, setting.tokens)
        return [run] * (setting.warmup + setting.repeats), {
            "greedy_equal": True,
            "same_choice": 1.0,
            "logit_error": 0.0,
        }

    monkeypatch.setattr(measure, "is_peer", lambda engine: engine == "torch_csr")
    monkeypatch.setattr(measure.alone, "measure", elsewhere)
    steps = measure.measure(model, ["torch_csr"], Setting(prompt=6, tokens=4, repeats=2, threads=1))
    while True:
        try:
            assert next(steps).total == 3  # the baseline's rounds alone
        except StopIteration as ended:
            said = ended.value
            break
    assert seen == [("torch_csr", 1)]
    assert said["engines"]["torch_csr"]["alone"] and not said["engines"][DENSE]["alone"]
    assert "share_of_bound" not in said["engines"]["torch_csr"]
    assert len(said["engines"]["torch_csr"]["speedup"]["values"]) == 2


class Deadly:
    """What ends the process that it is sent to."""

    def __init__(self, end, *how):
        self.end = end, how

    def __reduce__(self):
        return self.end


@pytest.mark.parametrize(
    ("deadly", "said"),
    [(Deadly(signal.raise_signal, 9), "was ended by SIGKILL"), (Deadly(os._exit, 3), "ended with status 3")],
)
def test_a_process_that_is_gone_is_told_with_its_engine(tiny_models, deadly, said):
    model, _ = tiny_models.tiny("llama")
    with pytest.raises(Problem, match=f"the process of the engine 'torch_csr' {said}") as caught:
        alone.measure(model, "torch_csr", Setting(tokens=2), 1, deadly)
    assert "memory ran out" in caught.value.hint
