from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.problems import Problem
from harness.runs import freeing
from harness.runs.events import CellDone
from harness.spec.grid import cells
from harness.tracking import curves, record

LABEL = "0.75/squarehead"


@pytest.fixture(scope="module")
def finished(samples, tmp_path_factory):
    """Entry, results folder and the events of the cells of one label and of the dense model."""
    root = tmp_path_factory.mktemp("record")
    entry, results = samples.entry(root / "experiments"), root / "results"
    events = samples.run(samples.planned(entry, results, (LABEL, "dense")), results)
    return entry, results, [event for event in events if isinstance(event, CellDone)]


@pytest.fixture
def said(finished):
    entry, results, events = finished
    event = next(event for event in events if (event.cell.label, event.cell.seed) == (LABEL, 1))
    return record.build(entry, event.cell, event.folders, results)


def test_a_record_says_what_was_asked_and_what_came_out(said):
    assert list(said) == list(record.KEYS)
    assert (said["entry"], said["scale"], said["label"], said["seed"]) == ("sample/translation", "tiny", LABEL, 1)
    assert said["axes"] == {"prune.sparsity": "0.75", "tune.loss": "squarehead"}
    assert said["paper"] == {"id": "arXiv:0000.00000", "name": "sample", "table": "Table 1"}
    assert list(said["stages"]) == ["prepare", "prune", "tune", "evaluate/bleu"]
    assert said["stages"]["tune"]["options"]["seed"] == 1
    assert said["stages"]["tune"]["options"]["weight_decay"] == 0.0
    assert said["stages"]["prepare"]["sources"]["data"].startswith("generated:cldr_pairs@")
    assert said["stages"]["prune"]["handling"]["samples"] == 128
    assert said["metrics"]["bleu"]["bleu"]["count"] == 64
    assert said["artifacts"]["tune"].startswith("artifacts/tune/")


def test_sparsity_is_that_of_the_layers_and_of_all_weights(said):
    expected = {"asked": 0.75, "after_prune": 0.75, "after_tune": 0.75, "of_all_weights": 0.75 * 8000 / 10000}
    assert said["sparsity"] == expected


def test_a_dense_cell_has_no_seed_in_its_name(finished, tmp_path):
    entry, results, events = finished
    event = next(event for event in events if event.cell.baseline == "dense")
    said = record.build(entry, event.cell, event.folders, results)
    assert said["sparsity"] == {"asked": 0.0}
    assert record.write(said, tmp_path) == tmp_path / "sample/translation/tiny/dense.json"


def test_curves_are_thinned_and_keep_their_ends(said):
    curve = said["curves"]["prepare"]
    assert len(curve["step"]) == curves.POINTS
    assert (curve["step"][0], curve["step"][-1]) == (1, 300)
    assert len(curve["loss"]) == len(curve["lr"]) == curves.POINTS


def test_writing_and_reading_gives_the_record_and_again_the_same_bytes(said, finished, tmp_path):
    path = record.write(said, tmp_path)
    assert path.name == "0.75.squarehead.seed1.json"
    assert record.read(path) == said
    first = path.read_bytes()
    assert first.endswith(b"}\n")
    entry, results, events = finished
    event = next(event for event in events if (event.cell.label, event.cell.seed) == (LABEL, 1))
    record.write(record.build(entry, event.cell, event.folders, results), tmp_path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_record_is_the_same_when_the_weights_were_freed(finished, tmp_path, monkeypatch):
    entry, results, events = finished
    copy = shutil.copytree(results, tmp_path / "results")
    monkeypatch.setattr(freeing, "LARGE", 1000)
    given = 0
    for event in events:
        folders = {role: copy / folder.relative_to(results) for role, folder in event.folders.items()}
        before = record.build(entry, event.cell, folders, copy)
        given += sum(map(freeing.free, folders.values()))
        assert record.build(entry, event.cell, folders, copy) == before
    assert given > 0


def test_a_record_that_lacks_a_key_is_refused_and_can_be_replaced(said, tmp_path):
    path = record.write(said, tmp_path)
    path.write_text(json.dumps({key: value for key, value in said.items() if key != "settings"}))
    with pytest.raises(Problem, match="lacks settings"):
        record.read(path)
    path.write_text(json.dumps({**said, "settings": "0123456789abcdef"}))
    with pytest.raises(Problem, match="settings should hold values by name"):
        record.read(path)
    record.write(said, tmp_path)
    assert record.read(path) == said


def test_a_full_disk_leaves_the_record_that_was_there(said, tmp_path, monkeypatch):
    path = record.write(said, tmp_path)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        record.write({**said, "title": "another"}, tmp_path)
    assert path.read_bytes() == before and [each.name for each in path.parent.iterdir()] == [path.name]


def test_weights_whose_header_is_damaged_are_named(finished):
    entry, results, events = finished
    event = events[-1]
    path = event.folders["prune"] / "model.safetensors"
    before = path.read_bytes()
    path.write_bytes(b"\xff" * len(before))
    with pytest.raises(Problem, match=r"model\.safetensors is damaged.*header"):
        record.build(entry, event.cell, event.folders, results)
    path.write_bytes(before)


def test_data_and_task_are_the_cells_own(samples, tmp_path):
    grid = ("  prune.sparsity: [0.5, 0.75, 0.9]\n", "  data: [cldr_pairs, multi30k]\n")
    entry = samples.entry(tmp_path, text=samples.YAML.partition("reference:")[0].replace(*grid) + "prune.sparsity: 0.5")
    asked = [record.asked(entry, cell) for cell in cells(entry)]
    assert {one["data"].partition(":")[0] for one in asked} == {"cldr_pairs", "multi30k"}
    assert all(one["data"].partition(":")[0] == one["axes"]["data"] for one in asked)


def test_a_list_of_numbers_stands_on_one_line_and_every_key_on_its_own(said):
    lines = record.text(said).splitlines()
    assert json.loads(record.text(said)) == said
    assert sum(line.strip().startswith('"step": [') and line.rstrip(",").endswith("]") for line in lines) == 2
    assert ' "seed": 1,' in lines


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_not_finite_is_refused_by_name(samples, entry, results, value):
    events = samples.run(samples.planned(entry, results, ("dense",)), results)
    event = next(event for event in events if isinstance(event, CellDone))
    scores = event.folders["evaluate/bleu"] / "scores.json"
    text = json.loads(scores.read_text())
    text["bleu"]["value"] = float(value.replace("Infinity", "inf"))
    scores.write_text(json.dumps(text))
    with pytest.raises(Problem, match=r"sample/translation dense.*metrics\.bleu\.bleu\.value") as caught:
        record.build(entry, event.cell, event.folders, results)
    assert value.lower()[:3] in str(caught.value)


def test_nothing_is_written_of_a_record_with_nan(said, tmp_path):
    with pytest.raises(Problem, match="finite"):
        record.write({**said, "sparsity": {"asked": float("nan")}}, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "damaged"),
        ("[]", "no record"),
        ('{"schema": 99}', "99"),
        ('{"schema": 1}', "no record of schema 2"),
        ('{"schema": 2}', "lacks entry"),
        ("\x00", "damaged"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, content, why):
    path = tmp_path / "entry" / "tiny" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(Problem, match=why) as caught:
        record.read_all(tmp_path)
    assert str(path) in str(caught.value)


def test_two_labels_with_one_file_name_are_refused(said, tmp_path):
    record.write({**said, "label": "2:4"}, tmp_path)
    with pytest.raises(Problem, match="2:4"):
        record.write({**said, "label": "2-4"}, tmp_path)


def test_all_records_are_found_by_entry_and_scale(said, tmp_path):
    for entry in ("squarehead", "squarehead/t5", "other"):
        for scale in ("tiny", "small"):
            record.write({**said, "entry": entry, "scale": scale}, tmp_path)
    assert len(record.read_all(tmp_path)) == 6
    assert [r["entry"] for r in record.read_all(tmp_path, "squarehead")] == ["squarehead"] * 2
    assert [r["scale"] for r in record.read_all(tmp_path, "squarehead/t5", "small")] == ["small"]
    assert record.read_all(tmp_path / "nothing") == []


def test_a_stage_from_elsewhere_keeps_its_environment(finished):
    entry, results, events = finished
    event = events[-1]
    path = event.folders["prepare"] / "done.json"
    before = path.read_text()
    done = json.loads(before)
    path.write_text(json.dumps({**done, "environment": {**done["environment"], "cpu": "another"}}))
    said = record.build(entry, event.cell, event.folders, results)
    path.write_text(before)
    assert said["stages"]["prepare"]["environment"]["cpu"] == "another"
    assert "environment" not in said["stages"]["tune"]


def test_records_import_nothing_heavy():
    script = "import sys, harness.tracking.record; assert not {'torch', 'mlflow', 'pandas'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(record.__file__).parents[2])


def test_a_record_keeps_what_a_training_cost(tmp_path):
    said = {"steps": 3, "parameters": 9, "trained_parameters": 4, "peak_memory_bytes": 7, "step_seconds": 0.5}
    said |= {"held_memory_bytes": 2}
    (tmp_path / record.SUMMARY).write_text(json.dumps({**said, "sparsity": {"after": 0.5, "merged": 0.0}}))
    cost = {name: said[name] for name in record.COST} | {"merged": 0.0}
    assert record._cost("tune", tmp_path) == record._cost("pretrain", tmp_path) == {"cost": cost}
    assert record._cost("prune", tmp_path) == {}
    more = {"gradient": {"samples": 2, "seconds": 3.5}, "prunings": [{"seconds": 1.0}, {"seconds": 2.0}]}
    (tmp_path / record.SUMMARY).write_text(json.dumps({**said, **more, "sparsity": {"after": 0.5}}))
    cost = record._cost("tune", tmp_path)["cost"]
    assert (cost["gradient_seconds"], cost["pruning_seconds"]) == (3.5, 3.0)
    (tmp_path / record.SUMMARY).write_text(json.dumps({"sparsity": {"after": 0.5}}))
    assert record._cost("tune", tmp_path) == {}
