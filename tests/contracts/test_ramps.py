"""Pruning while tuning: what a `tune` section may ask for, and what the `prune` section beside it allows."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.spec.fits import wrong_ramp
from harness.spec.sections import Prune, Tune

ROWS = {"data": "prose", "task": "language_modelling"}
TUNE = {**ROWS, "loss": "cross_entropy", "steps": 5, "lr": 1e-3}
PRUNE = {**ROWS, "criterion": "wanda", "sparsity": 0.5}


@pytest.mark.parametrize(
    ("given", "key", "said"),
    [
        ({"ramp": "cubic", "method": "lora"}, "ramp", "merged, what lora trains is dense"),
        ({"ramp": "cubic", "method": "lora_star"}, "ramp", "merged, what lora_star trains is dense"),
        ({"ramp": "cubic", "method": "seft"}, "ramp", "seft moves its own zeros"),
        ({"restart": True}, "restart", "it goes with a ramp, and there is none"),
        ({"last": 0.5}, "last", "it goes with a ramp, and there is none"),
        ({"ramp": "cubci"}, "", "unknown ramp"),
    ],
)
def test_a_ramp_that_cannot_be_is_named(given, key, said):
    with pytest.raises(ValidationError) as found:
        Tune.model_validate({**TUNE, **given})
    (error,) = found.value.errors()
    assert error["ctx"]["key"] == key and said in error["ctx"]["problem"].what


@pytest.mark.parametrize("method", ["masked", "losa", "lors", "spp", "sparse_peft"])
def test_a_method_that_merges_and_whose_mask_stays_may_have_one(method):
    assert Tune.model_validate({**TUNE, "method": method, "ramp": "cubic"}).ramp == "cubic:steps=5,start=0.0"


@pytest.mark.parametrize(
    ("ramp", "given", "said"),
    [
        ("cubic", {"pattern": "2:4", "sparsity": None}, "cubic goes over several sparsities, and 2:4 has one"),
        ("cubic", {"ramp": "cubic"}, "prune has a ramp too"),
        ("cubic", {"dtype": "bfloat16"}, "what trains is float32"),
        ("cubic:start=0.6", {}, "a ramp from 0.6 cannot end at 0.5"),
    ],
)
def test_a_ramp_that_the_pruning_does_not_allow_is_told(ramp, given, said):
    section = Tune.model_validate({**TUNE, "ramp": ramp}).model_dump(mode="json")
    assert said in wrong_ramp(section, Prune.model_validate({**PRUNE, **given}).model_dump(mode="json")).what


@pytest.mark.parametrize(
    ("given", "few"), [({"steps": 4}, True), ({"steps": 5}, False), ({"steps": 9, "last": 0.9}, True)]
)
def test_too_few_steps_for_a_ramp_are_told_before_it_runs(given, few):
    section = Tune.model_validate({**TUNE, "ramp": "cubic:steps=5", **given}).model_dump(mode="json")
    wrong = wrong_ramp(section, Prune.model_validate(PRUNE).model_dump(mode="json"))
    assert (wrong is not None) == few and (not few or "steps are too few for 5 prunings" in wrong.what)


def test_of_epochs_the_steps_are_not_known_yet():
    given = {**TUNE, "ramp": "cubic:steps=5", "steps": None, "epochs": 0.001}
    section = Tune.model_validate(given).model_dump(mode="json")
    assert wrong_ramp(section, Prune.model_validate(PRUNE).model_dump(mode="json")) is None


@pytest.mark.parametrize(
    ("ramp", "pattern"), [("cubic", "unstructured"), ("one_shot", "2:4"), ("chain", "unstructured")]
)
def test_others_are_allowed(ramp, pattern):
    given = {**PRUNE, "pattern": pattern, "sparsity": 0.6 if pattern == "unstructured" else None}
    section = Tune.model_validate({**TUNE, "ramp": ramp}).model_dump(mode="json")
    assert wrong_ramp(section, Prune.model_validate(given).model_dump(mode="json")) is None
