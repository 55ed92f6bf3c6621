from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from harness import models, rooms
from harness.models import llama, t5
from harness.problems import Problem
from harness.pruning import keep
from harness.runs.job import Job
from harness.spec.sections import Prune, Tune
from harness.stages import tune
from harness.stages._load import complete, verified

TEXTS = ["translate English to German: one two three 1 2 3", "eins zwei drei"]
SETTINGS = {
    "t5": {"data": "cldr_pairs:size=500", "task": "translation", "rows": 40},
    "llama": {"data": "arithmetic:size=40", "task": "reasoning"},
}


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """By family: the folders of a pruned model with its mask, and of the dense model."""
    made = {}
    for name, family in (("t5", t5), ("llama", llama)):
        folders = {role: tmp_path_factory.mktemp(f"{name}-{role}") for role in ("model", "teacher")}
        model, processor = family.tiny(TEXTS, seed=0)
        models.save(model, processor, folders["teacher"])
        linears = [linear for block in models.blocks(model) for linear in block.linears]
        keeps = {x.name: x.module.weight.abs() > x.module.weight.abs().median() for x in linears}
        keep.apply(model, keeps)
        models.save(model, processor, folders["model"])
        keep.save(folders["model"], keeps)
        made[name] = folders
    return made


def job(folder: Path, parents, family="t5", loss="cross_entropy", **section) -> Job:
    given = {"batch_size": 4, "accumulation": 2, "steps": 4, "lr": 1e-3, "loss": loss, "clip": 1.0}
    options = Tune.model_validate({**given, **SETTINGS[family], **section})
    for name in ("result", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    roles = parents[family] if options.teacher else {"model": parents[family]["model"]}
    return Job(options.model_dump(mode="json"), roles, folder / "result", folder / "scratch")


def pruning(folder: Path, parents, family="llama", prune=None, **section) -> Job:
    """A job that prunes while it tunes (with a ramp, from the dense model) or afterwards."""
    given = job(folder, parents, family, **section)
    wanted = {"criterion": "wanda", "sparsity": 0.6, "samples": 6, "batch_size": 3, **SETTINGS[family], **(prune or {})}
    options = {**given.options, "prune": Prune.model_validate(wanted).model_dump(mode="json")}
    start = parents[family]["teacher" if options["ramp"] else "model"]
    return Job(options, {**given.parents, "model": start}, given.folder, given.scratch)


def said(given: Job, file: str = "tune.json") -> dict:
    return json.loads((given.folder / file).read_text())


@pytest.mark.parametrize("family", SETTINGS)
def test_the_zeros_stay_and_everything_is_written(tmp_path, parents, family):
    given = job(tmp_path, parents, family, "cross_entropy + kl + squarehead:eps=1e-9")
    seen = list(tune.run(given))
    assert [(p.done, p.total) for p in seen] == [(i, 4) for i in range(1, 5)]
    curve = [json.loads(line) for line in (given.folder / "curve.jsonl").read_text().splitlines()]
    assert {"step", "loss", "cross_entropy", "kl", "squarehead", "lr", "grad_norm"} <= set(curve[0])
    assert all(
        set(row) - {"step"} == set(p.values) - {"samples_per_second", "tokens_per_second"}
        for row, p in zip(curve, seen, strict=True)
    )
    keeps, model = keep.load(given.folder), models.load(given.folder)
    keep.verify(model, keeps)
    assert all(torch.equal(k, keep.load(parents[family]["model"])[name]) for name, k in keeps.items())
    pruned = models.load(parents[family]["model"])
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), pruned.parameters(), strict=True))
    summary = json.loads((given.folder / "tune.json").read_text())
    assert summary["sparsity"]["mask"] == pytest.approx(0.5, abs=0.01)
    assert summary["sparsity"]["before"] == summary["sparsity"]["mask"]
    assert summary["sparsity"]["after"] == summary["sparsity"]["mask"]
    assert summary["trained_parameters"] < summary["parameters"]
    assert set(summary["teacher_mean_square"]) == ({"encoder", "decoder"} if family == "t5" else {"decoder"})


def test_a_broken_run_goes_on_to_the_same_bytes(tmp_path, parents):
    loss = "cross_entropy + squarehead"
    list(tune.run(job(tmp_path / "whole", parents, loss=loss)))
    run = tune.run(job(tmp_path / "cut", parents, loss=loss))
    next(run)
    run.close()
    assert [p.done for p in tune.run(job(tmp_path / "cut", parents, loss=loss))] == [2, 3, 4]
    for file in ("model.safetensors", "curve.jsonl", "keep.safetensors"):
        assert (tmp_path / "whole/result" / file).read_bytes() == (tmp_path / "cut/result" / file).read_bytes(), file


def test_without_a_distillation_term_there_is_no_teacher(tmp_path, parents):
    given = job(tmp_path, parents)
    assert "teacher" not in given.parents
    list(tune.run(given))
    assert "teacher_mean_square" not in json.loads((given.folder / "tune.json").read_text())


def test_a_model_that_does_not_fit_its_mask_is_refused_by_layer(tmp_path, parents):
    given = job(tmp_path, parents)
    broken = tmp_path / "broken"
    model, processor = (f(parents["t5"]["teacher"]) for f in (models.load, models.load_processor))
    models.save(model, processor, broken)
    keep.save(broken, keep.load(parents["t5"]["model"]))
    with pytest.raises(Problem, match=r"encoder\.block\.0.*pruned weights are not zero"):
        next(tune.run(Job(given.options, {"model": broken}, given.folder, given.scratch)))


@pytest.mark.parametrize("text", ["{bad", "{}", "[]"])
def test_a_damaged_report_of_the_pruning_is_a_problem(tmp_path, parents, text):
    given = job(tmp_path / "job", parents)
    source = tmp_path / "model"
    shutil.copytree(given.parents["model"], source)
    (source / "prune.json").write_text(text)
    with pytest.raises(Problem, match=r"no overall\.asked"):
        next(tune.run(Job(given.options, {**given.parents, "model": source}, given.folder, given.scratch)))


def test_an_unpruned_model_is_refused(tmp_path, parents):
    given = job(tmp_path, parents)
    with pytest.raises(Problem, match="no mask"):
        next(tune.run(Job(given.options, {"model": parents["t5"]["teacher"]}, given.folder, given.scratch)))


def test_zeros_lost_on_the_way_to_the_disk_are_noticed(tmp_path, parents, monkeypatch):
    given, save = job(tmp_path, parents), models.save

    def spoil(model, processor, folder):
        with torch.no_grad():
            model.encoder.block[1].layer[1].DenseReluDense.wo.weight.fill_(1)
        save(model, processor, folder)

    monkeypatch.setattr(tune.models, "save", spoil)
    with pytest.raises(Problem, match=r"encoder\.block\.1.*wo.*pruned weights are not zero"):
        list(tune.run(given))


RAMPS = {
    "masked": {"method": "masked", "ramp": "cubic:steps=3"},
    "sparsegpt": {"method": "masked", "ramp": "cubic:steps=2", "prune": {"criterion": None, "solver": "sparsegpt"}},
    "losa": {
        **{"method": "losa:rank=4,mean=3.0", "ramp": "cubic:steps=3", "restart": True, "last": 0.5, "warmup": 0.3},
        "prune": {"allocation": "rmi"},
    },
}


@pytest.mark.parametrize("name", RAMPS)
def test_a_ramp_prunes_between_phases_and_its_zeros_stay(tmp_path, parents, name):
    given = pruning(tmp_path, parents, steps=8, **RAMPS[name])
    seen = list(tune.run(given))
    assert [p.done for p in seen if p.unit == "step"] == list(range(1, 9))
    model, keeps, found = models.load(given.folder), keep.load(given.folder), said(given)
    keep.verify(model, keeps)
    rows = found["prunings"]
    turns = len(rows)
    cubic = [0.6 - 0.6 * (1 - turn / turns) ** 3 for turn in range(1, turns + 1)]
    assert [row["asked"] for row in rows] == pytest.approx(cubic)
    assert [row["reached"] for row in rows] == pytest.approx(cubic, abs=0.01)
    assert rows[0]["step"] == 0 and rows[-1]["step"] == {"masked": 5, "sparsegpt": 4, "losa": 4}[name]
    assert found["sparsity"]["asked"] == 0.6 and found["sparsity"]["before"] < 0.01
    assert found["sparsity"]["after"] == found["sparsity"]["merged"] == pytest.approx(0.6, abs=0.01)
    assert said(given, "prune.json")["overall"]["reached"] == found["sparsity"]["mask"]
    assert found["peak_memory_bytes"] > 0 and found["step_seconds"] > 0
    assert ("errors" in rows[0]) == (name == "losa")
    rates = [float(line["lr"]) for line in map(json.loads, (given.folder / "curve.jsonl").read_text().splitlines())]
    assert (rates[4] == 0) == (name == "losa"), "with restart the warm-up begins anew after a pruning"


@pytest.mark.parametrize("name", RAMPS)
@pytest.mark.parametrize("stop", [2, 7, 10, 15])
def test_a_ramp_killed_anywhere_goes_on_to_the_same_bytes(tmp_path, parents, name, stop, whole_ramps):
    whole = whole_ramps(name)
    run = tune.run(pruning(tmp_path, parents, steps=8, **RAMPS[name]))
    for _ in range(stop):  # in a pruning, or in a phase of training
        next(run)
    run.close()
    given = pruning(tmp_path, parents, steps=8, **RAMPS[name])
    list(tune.run(given))
    for file in ("model.safetensors", "curve.jsonl", "keep.safetensors"):
        assert (given.folder / file).read_bytes() == (whole / file).read_bytes(), file
    found, wanted = (json.loads((folder / "prune.json").read_text()) for folder in (given.folder, whole))
    assert found["overall"] == wanted["overall"] and found["trials"] == wanted["trials"]
    assert [row["zeros"] for row in found["layers"].values()] == [row["zeros"] for row in wanted["layers"].values()]


@pytest.fixture(scope="module")
def whole_ramps(tmp_path_factory, parents):
    """A function to the folder of an uninterrupted run, made once."""
    made = {}

    def of(name):
        if name not in made:
            given = pruning(tmp_path_factory.mktemp(name), parents, steps=8, **RAMPS[name])
            list(tune.run(given))
            made[name] = given.folder
        return made[name]

    return of


def test_a_ramp_by_gradients_of_the_whole_model_is_refused_where_processes_share_it(tmp_path, parents, monkeypatch):
    monkeypatch.setenv("HARNESS_PARALLEL", "fsdp")
    with pytest.raises(Problem, match="prunes by gradient takes gradients of the whole model"):
        next(tune.run(pruning(tmp_path, parents, ramp="cubic:steps=2", prune={"criterion": "gradient"})))


def test_a_checkpoint_follows_every_pruning(tmp_path, parents):
    run = tune.run(pruning(tmp_path, parents, steps=8, **RAMPS["masked"]))
    assert next(progress for progress in run if progress.unit == "step").done == 1
    assert [path.name.partition(".")[0] for path in (tmp_path / "scratch").glob("*.pt")] == ["step-00000000"]
    run.close()


def test_lora_is_left_beside_the_sparse_model_as_peft_reads_it(tmp_path, parents):
    given = job(tmp_path, parents, "llama", method="lora:rank=4", lr=1e-2)
    list(tune.run(given))
    base, before = models.load(given.folder), models.load(parents["llama"]["model"])
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), before.parameters(), strict=True))
    found = said(given)["sparsity"]
    assert found["after"] == found["before"] > 0.49 and found["merged"] < 0.01
    ids = torch.tensor([[5, 6, 7, 8]])
    plain = PeftModel.from_pretrained(models.load(given.folder), given.folder / "adapter").eval()
    whole = complete(given.folder)
    assert torch.equal(plain(input_ids=ids).logits, whole(input_ids=ids).logits)
    assert not torch.allclose(base(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-3)
    assert whole.generate(ids, max_new_tokens=2).shape == (1, 6)
    with pytest.raises(Problem, match="has an adapter beside it"):
        verified(given.folder)


def test_lora_star_is_pruned_again_by_the_cells_own_section(tmp_path, parents):
    prune = {"criterion": "magnitude", "sparsity": 0.5}
    given = pruning(tmp_path, parents, method="lora_star:rank=4", lr=1e-2, prune=prune)
    list(tune.run(given))
    model, keeps, found = models.load(given.folder), keep.load(given.folder), said(given)["sparsity"]
    keep.verify(model, keeps)
    assert found["merged"] < 0.01 and found["after"] == found["mask"] == pytest.approx(0.5, abs=1e-3)
    before = keep.load(parents["llama"]["model"])
    assert any(not torch.equal(mask, before[name]) for name, mask in keeps.items())
    assert said(given, "prune.json")["method"]["criterion"] == "magnitude"


def test_lora_star_follows_the_ramp_of_that_section(tmp_path, parents, monkeypatch):
    targets, turn = [], tune.Pruner.turn
    monkeypatch.setattr(tune.Pruner, "turn", lambda self, target: targets.append(target) or turn(self, target))
    prune = {"criterion": "magnitude", "sparsity": 0.6, "ramp": "cubic:steps=2"}
    given = pruning(tmp_path, parents, method="lora_star:rank=4", prune=prune)
    list(tune.run(given))
    assert targets == pytest.approx([0.525, 0.6])
    assert said(given)["sparsity"]["after"] == pytest.approx(0.6, abs=1e-3)


def test_lora_star_prunes_an_nm_model_to_that_pattern_again(tmp_path, parents):
    given = pruning(tmp_path, parents, method="lora_star:rank=4", prune={"pattern": "2:4", "sparsity": 0.5})
    list(tune.run(given))
    masks, model = keep.load(given.folder), models.load(given.folder)
    for name, mask in masks.items():
        assert (mask.unflatten(1, (-1, 4)).sum(-1) == 2).all(), name
        assert not model.get_submodule(name).weight[~mask].any(), name
    assert said(given)["sparsity"]["merged"] < 0.1 < 0.5 <= said(given)["sparsity"]["after"]


def test_a_mask_that_grew_is_noticed(tmp_path, parents, monkeypatch):
    support = rooms.load("method", "seft")._support

    def none_leaves(weight, keep, trained, exempt, spare, excess):
        return support.Leaving(*(torch.empty(0, dtype=torch.long) for _ in range(3)))

    monkeypatch.setattr(support, "lowest", none_leaves)
    given = job(tmp_path, parents, "llama", method="seft:density=0.05,interval=2,window=1")
    with pytest.raises(Problem, match=r"model\.layers\.0.*weights in its mask, which may have"):
        list(tune.run(given))


def test_a_mask_that_grew_beyond_its_methods_own_budget_is_noticed(tmp_path, parents, monkeypatch):
    spiel = rooms.load("method", "spiel")

    def more(weight, keep, trained, moments, step, steps):
        mask = keep[:]
        mask.view(-1)[: trained["values"].numel() + 1 + int(mask.sum())] = True
        keep[:] = mask

    list(tune.run(job(tmp_path / "within", parents, "llama", method="spiel:density=0.05,interval=2,window=1")))
    monkeypatch.setattr(spiel, "evolve", more)
    given = job(tmp_path, parents, "llama", method="spiel:density=0.05,interval=2,window=1")
    with pytest.raises(Problem, match=r"model\.layers\.0.*weights in its mask, which may have"):
        list(tune.run(given))


def test_what_was_held_before_the_model_came_is_told_with_the_peak(tmp_path, parents, monkeypatch):
    """A run that is resumed in a process that holds more tells of the process that added most."""
    held, order = [4096, 2**40], []
    monkeypatch.setattr(tune.memory, "held", lambda device: order.append("held") or held.pop(0))
    monkeypatch.setattr(tune, "changeable", lambda source, load=tune.changeable: order.append("load") or load(source))
    given = job(tmp_path, parents, "llama")
    begun = tune.run(given)
    next(begun)
    begun.close()
    list(tune.run(given))
    assert order == ["held", "load"] * 2
    assert said(given)["held_memory_bytes"] == 4096 < said(given)["peak_memory_bytes"] < 2**40


def test_gradients_are_counted_by_themselves(tmp_path, parents):
    given = job(tmp_path, parents, "llama", method="lors:rank=4,samples=6")
    list(tune.run(given))
    cost = said(given)["gradient"]
    assert cost["samples"] == 6 and cost["seconds"] > 0 and cost["peak_memory_bytes"] > 0


def test_a_budget_of_tokens_becomes_steps(tmp_path, parents):
    text = {"data": "prose", "task": "language_modelling:length=16", "rows": 4}
    given = job(tmp_path, parents, "llama", **text, steps=None, tokens=150)
    list(tune.run(given))
    assert said(given)["steps"] == 3  # 4 windows of 16 a step
    uneven = job(tmp_path / "uneven", parents, "llama", steps=None, tokens=150)
    with pytest.raises(Problem, match="windows of one length"):
        list(tune.run(uneven))
