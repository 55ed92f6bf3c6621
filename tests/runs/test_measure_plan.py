"""Where the measuring stands in a plan, and that its scores stand in record and table as an evaluation's do."""

from __future__ import annotations

import json

import pytest

from harness.inference.kernels import sources as kernels
from harness.reporting.compare import compare
from harness.runs import keys, origins
from harness.runs.plan import plan
from harness.runs.store import Store
from harness.spec import entry as spec
from harness.spec.grid import cells
from harness.tracking import record

TEXT = """\
title: how fast
model: tiny/llama
data: prose
task: language_modelling
prepare: {steps: 1, lr: 1e-3}
prune: {criterion: magnitude}
measure: {batch: 2}
grid:
  prune.sparsity: [0.5, 0.75]
  weights: {fp32: {measure.engine: packed}, int8: {measure.engine: "packed:precision=int8"}}
baselines: [dense]
reference:
  metric: measure.speedup
  read: Table 1
  cells: {fp32/dense: 1, 0.5/int8: 4.5}
"""


@pytest.fixture
def read(tmp_path):
    def make(text=TEXT):
        (tmp_path / "table.yaml").write_text(text)
        return spec.read("table", root=tmp_path)

    return make


@pytest.fixture
def planned(read, tmp_path):
    def make(text=TEXT):
        found = plan(cells(read(text)), Store(tmp_path / "artifacts"))
        assert not found.missing
        return {item.cell.label: item for item in found.cells}

    return make


def test_it_comes_last_and_reads_what_is_evaluated(planned):
    stages = planned(TEXT.replace("measure:", "evaluate: {perplexity: {limit: 4}}\nmeasure:"))["0.5/int8"].stages
    assert list(stages) == ["prepare", "prune", "evaluate/perplexity", "measure"]
    assert stages["measure"].parents == {"model": stages["prune"]} == stages["evaluate/perplexity"].parents
    assert stages["measure"].slug.endswith(".s50.packed")
    assert stages["measure"].options["engine"].startswith("packed:format=auto,precision=int8")
    assert stages["measure"].sources.keys() == {"processor", "package/torch", "kernels"}


def keys_of(planned, text=TEXT):
    return {label: item.stages["measure"].key for label, item in planned(text).items()}


def test_another_processor_is_another_key(planned, monkeypatch):
    before = keys_of(planned)
    assert keys_of(planned) == before
    monkeypatch.setattr(origins, "environment", lambda: {"cpu": "another processor"})
    assert not set(keys_of(planned).values()) & set(before.values())


def test_another_number_of_threads_is_another_key(planned, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = keys_of(planned)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert not set(keys_of(planned).values()) & set(before.values())


def test_changed_kernels_are_another_key_where_they_are_timed(planned, monkeypatch, tmp_path):
    plain = TEXT.replace("packed:precision=int8", "torch_int8").replace(
        "measure.engine: packed", "measure.engine: torch_csr"
    )
    before, others = keys_of(planned), keys_of(planned, plain)
    (tmp_path / "kernels").mkdir()
    for path in kernels.FOLDER.iterdir():
        (tmp_path / "kernels" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(kernels, "FOLDER", tmp_path / "kernels")
    assert keys_of(planned) == before
    (tmp_path / "kernels" / "dense.cpp").write_text("// another\n")
    assert not set(keys_of(planned).values()) & set(before.values())
    assert keys_of(planned, plain) == others


def test_another_version_of_the_runtime_is_another_key(planned, monkeypatch):
    text = TEXT.replace("packed:precision=int8", "onnxruntime")
    sources = planned(text)["0.5/int8"].stages["measure"].sources
    assert {"package/torch", "package/onnxruntime"} <= sources.keys()
    before = keys_of(planned, text)
    versions = {"onnxruntime": "9", "torch": sources["package/torch"].revision}
    monkeypatch.setattr(origins, "_installed", versions.get)
    after = keys_of(planned, text)
    assert after["0.5/int8"] != before["0.5/int8"] and after["0.5/fp32"] == before["0.5/fp32"]


def test_engines_share_the_model_that_they_run(planned):
    found = planned()
    assert found["0.5/fp32"].stages["prune"] == found["0.5/int8"].stages["prune"]
    assert found["0.5/fp32"].stages["measure"] != found["0.5/int8"].stages["measure"]
    dense = found["int8/dense"].stages
    assert list(dense) == ["prepare", "measure"] and dense["measure"].parents == {"model": dense["prepare"]}


def test_scores_stand_in_the_record_and_beside_the_paper_s(read, planned, tmp_path):
    entry, item = read(), planned()["int8/dense"]
    score = {"value": 3.9, "stderr": 0.1, "count": 7, "protocol": "batch 2; a processor", "higher_is_better": True}
    folders = {}
    for role, stage in item.stages.items():
        folders[role] = tmp_path / role
        folders[role].mkdir()
        done = {
            "key": "k",
            "version": keys.version(stage.name),
            "options": dict(stage.options),
            "handling": {},
            "parents": {},
            "sources": {},
        }
        done |= {"seconds": 1.0, "environment": {"cpu": "a processor"}}
        (folders[role] / "done.json").write_text(json.dumps(done))
    (folders["measure"] / "scores.json").write_text(json.dumps({"speedup": score, "total_speedup": score}))
    made = record.build(entry, item.cell, folders, tmp_path)
    assert made["metrics"] == {"measure": {"speedup": score, "total_speedup": score}}
    assert made["data"].startswith("prose") and made["settings"]["measure"]["batch"] == 2
    shown = compare(entry, [made]).select("measure", "speedup").set_index("label")
    assert shown.loc["int8/dense", "mean"] == 3.9 and shown.loc["fp32/dense", "paper"] == 1
    assert shown.loc["0.5/int8", "paper"] == 4.5 and shown.loc["0.5/int8", "status"] == "not run"


def test_what_is_not_run_has_the_headline_s_column(read):
    assert compare(read(), []).headlines() == [("measure", "speedup")]
