"""Sparse pretraining: what tune computes, under its own name and without needing a loss to be named."""

from __future__ import annotations

import json

import pytest

from harness import models
from harness.models import llama
from harness.pruning import keep
from harness.runs.job import Job
from harness.runs.keys import version
from harness.spec.sections import Pretrain
from harness.stages import pretrain

TEXTS = ["one two three four five six seven eight nine ten"] * 8


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """The folder of a pruned model with its mask."""
    folder = tmp_path_factory.mktemp("pruned")
    model, processor = llama.tiny(TEXTS, seed=0)
    linears = [linear for block in models.blocks(model) for linear in block.linears]
    keeps = {each.name: each.module.weight.abs() > each.module.weight.abs().median() for each in linears}
    keep.apply(model, keeps)
    models.save(model, processor, folder)
    keep.save(folder, keeps)
    return folder


def test_the_zeros_stay_while_it_goes_on_learning(tmp_path, pruned):
    asked = {"data": "prose", "task": "language_modelling:length=32", "rows": 40, "steps": 3, "lr": 1e-2}
    options = Pretrain.model_validate({**asked, "batch_size": 4}).model_dump(mode="json")
    for name in ("result", "scratch"):
        (tmp_path / name).mkdir()
    list(pretrain.run(Job(options, {"model": pruned}, tmp_path / "result", tmp_path / "scratch")))
    said = json.loads((tmp_path / "result" / pretrain.FILE).read_text())
    assert said["steps"] == 3 and said["sparsity"]["after"] == pytest.approx(0.5, abs=0.01)
    before, after = (keep.load(folder) for folder in (pruned, tmp_path / "result"))
    assert all((before[name] == after[name]).all() for name in before)
    dense = [models.load(folder).get_submodule("lm_head").weight for folder in (pruned, tmp_path / "result")]
    assert not dense[0].equal(dense[1])


def test_it_has_a_version_of_its_own_and_a_teacher_where_a_loss_looks_at_one():
    assert version("pretrain") == pretrain.VERSION
    asked = {"data": "prose", "task": "language_modelling", "steps": 3, "lr": 1e-2}
    assert Pretrain.model_validate(asked).teacher is None
    assert Pretrain.model_validate(asked).loss == "cross_entropy"
    assert Pretrain.model_validate({**asked, "loss": "cross_entropy + squarehead"}).teacher == "dense"
    with pytest.raises(ValueError, match="needs one"):
        Pretrain.model_validate({**asked, "loss": "squarehead", "teacher": None})
