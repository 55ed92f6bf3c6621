"""The sweep behind `harness measure`: sparser copies, break-even over them, and the forms that go with engines."""

from __future__ import annotations

import pytest
import torch

from harness.inference import command
from harness.inference.command import Sweep, break_even, forms, sparser, sweeping
from harness.inference.measure import Setting
from harness.inference.swap import prunable


def test_a_sparser_model_loses_its_smallest_weights(tiny_models):
    model, _ = tiny_models.tiny("llama")
    made = sparser(model, 0.75)
    for name in prunable(model):
        before, after = model.get_submodule(name).weight, made.get_submodule(name).weight
        assert (after == 0).float().mean(1).unique().tolist() == [0.75]
        kept = after != 0
        assert torch.equal(after[kept], before[kept])
        smallest = before.abs().masked_fill(~kept, torch.inf).amin(1)
        assert bool((before.abs().masked_fill(kept, 0).amax(1) <= smallest).all())
    assert torch.equal(made.lm_head.weight, model.lm_head.weight)


def report(sparsity, batch, **speedups):
    engines = {"base": {"speedup": {"median": 1.0}}}
    engines |= {name: {"speedup": {"median": value}} for name, value in speedups.items()}
    setting = {"batch": batch, "prompt": 8}
    return {"sparsity": sparsity, "against": "base", "setting": setting, "engines": engines}


def test_break_even_is_found_for_each_engine_and_batch():
    reports = [report(0.0, 1, a=0.5, b=0.2), report(0.5, 1, a=1.5, b=0.9), report(0.0, 4, a=2.0, b=0.5)]
    found = break_even(reports)
    assert found == [
        {"engine": "a", "batch": 1, "prompt": 8, "sparsity": 0.25},
        {"engine": "b", "batch": 1, "prompt": 8, "sparsity": None},
    ]
    assert break_even([report(None, 1, a=2.0), report(None, 1, a=2.0)]) == []


def test_every_combination_is_measured_in_its_turn(monkeypatch):
    seen = []

    def measure(model, engines, setting, against):
        seen.append((model, setting.batch, setting.prompt, setting.tokens))
        yield command.Progress(1, 2)
        yield command.Progress(2, 2)
        return {"done": len(seen)}

    monkeypatch.setattr(command, "measure", measure)
    monkeypatch.setattr(command, "sparser", lambda model, sparsity: f"{model} {sparsity}")
    reports = []
    sweep = Sweep(["packed"], Setting(tokens=5), batches=(1, 8), prompts=(16,), sparsities=(0.5, 0.9))
    said = list(sweeping("model", sweep, reports))
    assert seen == [("model 0.5", 1, 16, 5), ("model 0.5", 8, 16, 5), ("model 0.9", 1, 16, 5), ("model 0.9", 8, 16, 5)]
    assert [(step.done, step.total) for step in said] == [(done, 8) for done in range(1, 9)]
    assert reports == [{"sparsity": s, "done": done} for done, s in enumerate((0.5, 0.5, 0.9, 0.9), 1)]


@pytest.mark.parametrize(
    ("engines", "expected"),
    [
        (["torch_csr"], [("hf-dense", "fp32")]),
        (["packed", "packed:join=false"], [("hf-dense", "fp32"), ("auto", "fp32")]),
        (["packed:format=slot,precision=int8"], [("hf-dense", "fp32"), ("slot", "int8")]),
    ],
)
def test_a_packed_engine_has_its_form_on_disk(engines, expected):
    assert forms(engines) == expected


def test_forms_beside_zeroed_models_are_said_to_be_of_the_model_as_it_is(monkeypatch):
    monkeypatch.setattr(command, "table", lambda report: "| its table |")
    said = {"model": "a/model@1", "measurements": [{"sparsity": None}], "break_even": [], "forms": [], "left_out": {}}
    assert "| its table |" in command.tables(said) and "as it is" not in command.tables(said)
    assert "of the model as it is" in command.tables(said | {"measurements": [{"sparsity": 0.5}]})
