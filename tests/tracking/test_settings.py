from __future__ import annotations

import copy
import json

import pytest

from harness.spec.grid import cells
from harness.tracking import record
from harness.tracking.settings import agrees, differences, settings

LABEL = "0.75/squarehead"


@pytest.fixture
def cell(samples, tmp_path):
    """Returns the cell of the made-up experiment with one label; its text and single settings can be changed."""

    def cell(*options, text=samples.YAML, label=LABEL):
        entry = samples.entry(tmp_path, text=text, set=options)
        return next(each for each in cells(entry) if each.label == label)

    return cell


def made(cell, **stages):
    """The part of a cell's record that is compared, as it comes back from its file."""
    return json.loads(json.dumps({"settings": settings(cell), "stages": stages}))


def test_a_record_holds_all_that_was_asked_but_how_often_to_checkpoint(cell):
    said = settings(cell())
    assert list(said) == ["model", "prepare", "prune", "pretrain", "tune", "quantize", "measure", "evaluate"]
    loss = "cross_entropy + squarehead:eps=1e-09,final=norm,tokens=valid,distance=normalised,layers=sum"
    assert said["prune"]["samples"] == 128 and said["tune"]["loss"] == loss
    assert "checkpoint_every" not in said["tune"] and "checkpoint_every" not in said["prepare"]
    assert settings(cell("tune.checkpoint_every=7")) == said and settings(cell("tune.lr=2e-3")) != said
    assert settings(cell(label="dense"))["prune"] is None


def test_in_a_chain_the_cells_before_are_nested(samples, cell):
    text = samples.YAML + "chain: prune.sparsity\n"
    said = settings(cell(text=text, label="0.9/squarehead"))
    assert said["prune"]["sparsity"] == 0.9
    assert said["previous"]["prune"]["sparsity"] == 0.75 and said["previous"]["previous"]["prune"]["sparsity"] == 0.5
    assert "previous" not in settings(cell(text=text, label="0.5/squarehead"))


def test_what_was_just_recorded_agrees(cell):
    for label in (LABEL, "dense", "0.5/one_shot"):
        assert agrees(made(cell(label=label)), cell(label=label))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("prune.samples=64", "prune.samples 128, now 64"),
        ("tune.lr=2e-3", "tune.lr 0.001, now 0.002"),
        ("tune.rows=5", "tune.rows none, now 5"),
        ("prune.criterion=wanda", "prune.criterion magnitude, now wanda"),
        ("evaluate.bleu.metric=bleu:tokenize=char", "evaluate.bleu.metric tokenize=13a, now tokenize=char"),
    ],
)
def test_a_changed_value_is_named_with_what_it_was(cell, option, said):
    assert differences(made(cell()), cell(option)) == [said]


def test_another_model_is_named(cell):
    old = made(cell())
    old["settings"]["model"] = "org/other"
    assert differences(old, cell()) == ["model org/other, now tiny/t5"]


def test_a_setting_that_a_record_lacks_counts_as_todays_default(cell):
    old = made(cell())
    for section, key in (("prune", "batch_size"), ("prune", "seed"), ("tune", "schedule"), ("tune", "betas")):
        del old["settings"][section][key]
    del old["settings"]["evaluate"]["bleu"]["limit"]
    assert agrees(old, cell())
    (said,) = differences(old, cell("tune.schedule=cosine"))
    assert said.startswith("tune.schedule linear, now cosine")
    assert differences(old, cell("evaluate.bleu.limit=9")) == ["evaluate.bleu.limit none, now 9"]


def test_an_option_that_a_recorded_choice_lacks_counts_as_todays_default(cell):
    old = made(cell())
    for section in ("prepare", "prune", "tune"):
        old["settings"][section]["task"] = "translation:beams=1"
    old["settings"]["tune"]["loss"] = "cross_entropy + squarehead:eps=1e-09"
    assert agrees(old, cell())
    (said,) = differences(old, cell("tune.task=translation:beams=1,max_target=64"))
    assert said == "tune.task max_target=128, now max_target=64"


def test_a_default_that_is_stated_and_has_changed_since_differs(cell):
    old = made(cell("prune.batch_size=8"))
    assert differences(old, cell()) == ["prune.batch_size 8, now 4"]


def test_what_there_is_no_more_differs(cell):
    old = made(cell())
    old["settings"]["prune"]["gone"] = 3
    assert differences(old, cell()) == ["unknown key 'prune.gone' today"]
    old = made(cell())
    old["settings"]["tune"]["method"] = "masked:gone=3"
    assert differences(old, cell()) == ["tune.method: method 'masked' has no option 'gone' today"]
    old["settings"]["tune"]["method"] = "gone"
    assert differences(old, cell()) == ["tune.method: unknown method 'gone' today"]


def test_a_section_or_an_evaluation_more_or_less_differs(cell):
    dense, tuned = made(cell(label="dense")), made(cell())
    assert differences(dense, cell()) == ["prune none, now given", "tune none, now given"]
    assert differences(tuned, cell(label="dense")) == ["prune given, now none", "tune given, now none"]
    old = copy.deepcopy(tuned)
    old["settings"]["evaluate"]["chrf"] = old["settings"]["evaluate"].pop("bleu")
    assert differences(old, cell()) == ["evaluate.bleu none, now given", "evaluate.chrf given, now none"]


def test_the_cells_before_count_in_a_chain(samples, cell):
    text = samples.YAML + "chain: prune.sparsity\n"
    old = made(cell(text=text))
    assert agrees(old, cell(text=text))
    del old["settings"]["previous"]["tune"]["clip"]
    assert agrees(old, cell(text=text))
    old["settings"]["previous"]["tune"]["lr"] = 0.5
    assert differences(old, cell(text=text)) == ["previous.tune.lr 0.5, now 0.001"]
    assert differences(made(cell()), cell(text=text)) == ["previous none, now given"]


def test_another_version_of_a_stage_differs(cell, monkeypatch):
    stages = {"prune": {"version": 1}, "evaluate/bleu": {"version": 1}}
    old = made(cell(), **stages)
    monkeypatch.setattr("harness.tracking.settings.version", lambda name: 1)
    assert agrees(old, cell())
    monkeypatch.setattr("harness.tracking.settings.version", {"prune": 2, "evaluate": 1}.get)
    assert differences(old, cell()) == ["version 1 of prune, now 2"]


def test_a_whole_record_agrees(samples, entry, results):
    (said,) = samples.records(entry, results, ("dense",))
    path = record.write(said, results / "records")
    dense = next(cell for cell in cells(entry) if cell.label == "dense")
    assert agrees(record.read(path), dense)
