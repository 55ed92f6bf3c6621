"""What a stage reads: a quantised model is evaluated and measured, and never trained or pruned into another."""

from __future__ import annotations

import pytest

from harness import models
from harness.problems import Problem
from harness.pruning import keep
from harness.runs.job import Job
from harness.spec.sections import Prepare, Prune, Quantize, Tune
from harness.stages import _load, prepare, prune, quantize, tune

READS = {"data": "arithmetic:size=40", "task": "reasoning"}
SECTIONS = {
    prepare: Prepare.model_validate({"steps": 1, "lr": 1e-3, **READS}),
    prune: Prune.model_validate({"criterion": "magnitude", "sparsity": 0.5, **READS}),
    tune: Tune.model_validate({"loss": "cross_entropy", "steps": 1, "lr": 1e-3, **READS}),
}


@pytest.fixture(scope="module")
def sparse(tmp_path_factory, tiny_models):
    """The folder of a tiny model that was pruned."""
    sparse = tmp_path_factory.mktemp("sparse")
    model, processor = tiny_models.tiny("llama")
    keeps = {each.name: each.module.weight.abs() > 0.01 for block in models.blocks(model) for each in block.linears}
    keep.apply(model, keeps)
    models.save(model, processor, sparse)
    keep.save(sparse, keeps)
    return sparse


@pytest.fixture(scope="module")
def quantised(tmp_path_factory, sparse):
    """The folder of that model, quantised."""
    made, scratch = (tmp_path_factory.mktemp(name) for name in ("quantised", "scratch"))
    options = Quantize.model_validate(READS).model_dump(mode="json")
    list(quantize.run(Job(options, {"model": sparse}, made, scratch)))
    return made


@pytest.mark.parametrize("stage", SECTIONS, ids=["prepare", "prune", "tune"])
def test_a_quantised_model_is_not_changed(quantised, tmp_path, stage):
    _load.verified(quantised)
    job = Job(SECTIONS[stage].model_dump(mode="json"), {"model": quantised}, tmp_path, tmp_path)
    with pytest.raises(Problem, match="this model is quantised") as caught:
        list(stage.run(job))
    assert caught.value.where == str(quantised) and "quantise what comes of it" in caught.value.hint


def test_a_sparse_model_is_not_prepared_whose_zeros_would_be_filled(sparse, tmp_path):
    job = Job(SECTIONS[prepare].model_dump(mode="json"), {"model": sparse}, tmp_path, tmp_path)
    with pytest.raises(Problem, match="this model is sparse") as caught:
        list(prepare.run(job))
    assert caught.value.where == str(sparse) and "masked" in caught.value.hint
