"""Where quantisation stands in a plan, and which of its options decide."""

from __future__ import annotations

import pytest

from harness.runs.decides import CALIBRATION, calibrates_quantisation, split
from harness.runs.plan import plan
from harness.runs.store import Store
from harness.spec import entry as spec
from harness.spec.grid import cells
from harness.spec.sections import Quantize

TEXT = """\
title: a table
model: tiny/mpt
data: arithmetic
task: reasoning
prepare: {steps: 4, lr: 1e-3}
prune: {criterion: magnitude}
tune: {steps: 2, lr: 1e-3, loss: cross_entropy}
quantize: {rounding: rtn}
grid:
  prune.sparsity: [0.5, 0.75]
  bits: {fp32: {quantize: null}, w8: {quantize.bits: 8}, w4: {quantize.bits: 4}}
"""


@pytest.fixture
def planned(tmp_path):
    def make(text=TEXT, *changes):
        (tmp_path / "table.yaml").write_text(text)
        found = plan(cells(spec.read("table", root=tmp_path, set=changes)), Store(tmp_path / "artifacts"))
        assert not found.missing
        return {item.cell.label: item.stages for item in found.cells}

    return make


def test_it_comes_after_the_tuning_and_before_the_evaluation(planned):
    stages = planned()["0.5/w4"]
    assert list(stages) == ["prepare", "prune", "tune", "quantize", "evaluate/reasoning"]
    assert stages["quantize"].parents == {"model": stages["tune"]}
    assert stages["evaluate/reasoning"].parents == {"model": stages["quantize"]}
    assert stages["quantize"].slug.endswith(".rtn.w4")


def test_cells_share_what_comes_before(planned):
    stages = planned()
    assert stages["0.5/fp32"]["tune"] == stages["0.5/w8"]["tune"] == stages["0.5/w4"]["tune"]
    assert stages["0.5/w8"]["quantize"] != stages["0.5/w4"]["quantize"] and "quantize" not in stages["0.5/fp32"]
    assert all("quantize" not in stages[label] for label in ("dense", "0.5/one_shot", "0.75/one_shot"))


def test_without_tuning_or_pruning_it_comes_after_what_there_is(planned):
    pruned = TEXT.replace("tune: {steps: 2, lr: 1e-3, loss: cross_entropy}\n", "")
    stages = planned(pruned)["0.5/w8"]
    assert stages["quantize"].parents == {"model": stages["prune"]}
    dense = pruned.replace("prune: {criterion: magnitude}\n", "").replace("  prune.sparsity: [0.5, 0.75]\n", "")
    stages = planned(dense)["w8"]
    assert stages["quantize"].parents == {"model": stages["prepare"]}


def test_the_chain_goes_on_from_weights_that_are_not_quantised(planned):
    stages = planned(TEXT + "chain: prune.sparsity\n")
    assert stages["0.75/w8"]["prune"].parents["model"] == stages["0.5/w8"]["tune"]


@pytest.mark.parametrize(
    ("given", "looks"),
    [
        ({}, False),
        ({"activations": "dynamic", "bits": 4, "embeddings": True}, False),
        ({"rounding": "gptq"}, True),
        ({"smooth": 0.5}, True),
        ({"activations": "static"}, True),
    ],
)
def test_calibration_decides_only_where_something_looks_at_it(given, looks):
    section = {"data": "arithmetic", "task": "reasoning", **given}
    options = Quantize.model_validate(section).model_dump(mode="json")
    assert calibrates_quantisation(options) == looks
    decides, handling = split("quantize", options)
    assert decides.keys() | handling.keys() == options.keys()
    assert set(handling) == (set() if looks else set(CALIBRATION))
    if looks:
        assert "max_new_tokens" not in decides["task"], "an option of prediction alone"


def test_another_seed_is_another_result_only_with_calibration(planned):
    stage = planned()["0.5/w8"]["quantize"]
    assert planned(TEXT, "quantize.seed=1")["0.5/w8"]["quantize"] == stage
    gptq = TEXT.replace("rounding: rtn", "rounding: gptq")
    assert planned(gptq)["0.5/w8"]["quantize"] != planned(gptq, "quantize.seed=1")["0.5/w8"]["quantize"]
