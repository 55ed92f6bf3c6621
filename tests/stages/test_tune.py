from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness import models
from harness.models import llama, t5
from harness.problems import Problem
from harness.pruning import keep
from harness.runs.job import Job
from harness.spec.sections import Tune
from harness.stages import tune

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
