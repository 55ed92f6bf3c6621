"""The sweep behind `harness measure`: sparser copies, break-even over them, and the forms that go with engines."""

from __future__ import annotations

import json

import pytest
import torch

from harness import models, rooms
from harness.inference import command
from harness.inference.baseline import DENSE, own_dense
from harness.inference.command import Sweep, break_even, forms, sparser, sweeping
from harness.inference.loading import loading
from harness.inference.measure import Setting
from harness.inference.swap import prunable
from harness.problems import Problem


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


PACKED = str(rooms.resolve("engine", "packed:format=bitmask"))
OWN = own_dense(PACKED)


def report(sparsity, batch, against=DENSE, **speedups):
    engines = {name: {"speedup": {"median": 1.0}, "speedup_own": {"median": 1.0}} for name in (against, DENSE, OWN)}
    engines |= {name: {"speedup": {"median": value}} for name, value in speedups.items()}
    setting = {"batch": batch, "prompt": 8}
    return {"sparsity": sparsity, "against": against, "torch": DENSE, "setting": setting, "engines": engines}


def found(*reports):
    return {(each["engine"], each["over"]): each["sparsity"] for each in break_even(reports)}


def test_break_even_is_found_for_each_engine_and_batch():
    points = [(0.0, 1, 0.5, 0.2), (0.5, 1, 1.5, 0.9), (0.0, 4, 2.0, 0.5)]
    reports = [report(sparsity, batch, torch_csr=a, torch_int8=b) for sparsity, batch, a, b in points]
    assert break_even(reports) == [
        {"engine": "torch_csr", "over": DENSE, "batch": 1, "prompt": 8, "sparsity": 0.25, "least": 0.0},
        {"engine": "torch_int8", "over": DENSE, "batch": 1, "prompt": 8, "sparsity": None, "least": 0.0},
    ]
    assert break_even([report(None, 1, torch_csr=2.0), report(None, 1, torch_csr=2.0)]) == []


def test_break_even_is_over_our_own_dense_weights_too():
    said = []
    for sparsity, own in ((0.0, 0.8), (0.5, 1.2)):
        made = report(sparsity, 1, against=OWN)
        made["engines"][PACKED] = {"speedup": {"median": own}, "speedup_own": {"median": own}}
        made["engines"][PACKED]["speedup_torch"] = {"median": 2.0}
        made["engines"]["onnxruntime"] = {"alone": True, "failed": "not installed"}
        said.append(made)
    assert found(*said) == {(PACKED, OWN): 0.25, (PACKED, DENSE): 0.0}
    for made in said:
        made["against"] = DENSE
    assert found(*said) == {(PACKED, DENSE): 0.25, (PACKED, OWN): 0.25}


@pytest.mark.parametrize(
    ("sparsity", "words"), [(None, "slower at all"), (0.5, "50%, the least that was measured"), (0.75, "75%")]
)
def test_a_break_even_below_all_points_is_not_said_to_be_one(sparsity, words):
    each = {"engine": "e", "over": "o", "batch": 1, "prompt": 8, "sparsity": sparsity, "least": 0.5}
    said = {"model": "a/model@1", "measurements": [], "break_even": [each], "forms": [], "left_out": {}}
    assert f"- e, batch 1, prompt 8, over o: {words}" in command.tables(said)
    assert ("the least" in command.tables(said)) is (sparsity == 0.5)


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
        (["torch_csr"], []),
        (["packed", "packed:join=false"], [("auto", "fp32", "keep")]),
        (["packed:format=slot,precision=int8,head=int8"], [("slot", "int8", "int8")]),
    ],
)
def test_a_packed_engine_has_its_form_on_disk(engines, expected):
    assert forms(engines) == [("hf-dense", "fp32", "keep"), *expected]


def test_the_output_layer_is_written_as_the_engine_has_it(tiny_models, tmp_path):
    model, processor = tiny_models.tiny("llama")
    engines = ["packed:format=bitmask", "packed:format=bitmask,head=int8"]
    _, kept, rounded = loading(model, processor, forms(engines), tmp_path)
    assert (kept["head"], rounded["head"]) == ("keep", "int8")
    saved = model.lm_head.weight.numel() * 3 - 4 * len(model.lm_head.weight)
    assert kept["bytes_in_memory"] - rounded["bytes_in_memory"] == pytest.approx(saved, rel=0.1)
    assert rounded["bytes_on_disk"] < kept["bytes_on_disk"]


def test_forms_are_written_of_the_model_at_each_sparsity(tiny_models, tmp_path):
    models.save(*tiny_models.tiny("llama"), tmp_path / "model")
    setting = Setting(tokens=3, repeats=1, threads=1)
    sweep = Sweep(["packed:format=bitmask"], setting, prompts=(8,), sparsities=(0.0, 0.75))
    command.command(str(tmp_path / "model"), tmp_path / "out", sweep)
    said = json.loads((tmp_path / "out" / command.FILE).read_text())
    sizes = {(form["sparsity"], form["format"]): form["bytes_on_disk"] for form in said["forms"]}
    assert sizes.keys() == {(s, form) for s in (0, 0.75) for form in ("hf-dense", "bitmask")}
    assert sizes[0.75, "bitmask"] < sizes[0, "bitmask"] and sizes[0.75, "hf-dense"] == sizes[0, "hf-dense"]
    tables = (tmp_path / "out" / command.TABLE).read_text().split("## 75%")
    assert all(table.count("| hf-dense fp32 |") == table.count("| bitmask fp32 |") == 1 for table in tables)


def test_a_length_of_a_prompt_is_refused_for_a_model_that_hears(tiny_models):
    model, _ = tiny_models.tiny("whisper")
    command.check_prompts(model, Sweep(["packed"], Setting()))
    with pytest.raises(Problem, match="reads no prompt: it hears a window"):
        command.check_prompts(model, Sweep(["packed"], Setting(), prompts=(64,)))
    command.check_prompts(tiny_models.tiny("llama")[0], Sweep(["packed"], Setting(), prompts=(64, 128)))
