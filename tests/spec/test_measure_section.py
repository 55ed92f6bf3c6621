"""The `measure` section: its defaults, what is refused, and the cells that an axis of engines makes."""

from __future__ import annotations

import pytest

from harness import rooms
from harness.spec.grid import cells

SPEED = """\
title: how fast
model: org/t5
data: pairs
task: translation
prune: {criterion: magnitude}
measure: {batch: 2}
grid:
  prune.sparsity: [0.5, 0.75]
  weights:
    fp32: {measure.engine: quick}
    int8: {measure.engine: "quick:bits=8"}
baselines: [dense]
reference:
  metric: measure.speedup
  read: Table 1
  cells: {fp32/dense: 1, 0.5/int8: 4.5}
"""


@pytest.fixture(autouse=True)
def engines(house):
    folder = rooms.PACKAGE / "inference" / "engines"
    folder.mkdir(parents=True)
    (folder / "quick.py").write_text("DEVICE = 'cpu'\ndef prepare(model, *, bits: int = 32):\n    ...\n")
    (folder / "fast.py").write_text("DEVICE = 'cuda'\ndef prepare(model):\n    ...\n")
    dense = "DEVICE = 'any'\ndef prepare(model, *, dtype: str = 'float32'):\n    ...\n"
    (folder / "torch_dense.py").write_text(dense)


def test_every_default_is_written_out(registry):
    cell = registry.cells(text=SPEED)[-1]
    assert cell.settings["measure"] == {
        "engine": "quick:bits=8",
        "against": "torch_dense:dtype=float32",
        "batch": 2,
        "prompt": 128,
        "tokens": 32,
        "repeats": 7,
        "warmup": 1,
        "threads": None,
        "seed": 0,
    }


def test_dense_models_are_measured_with_each_engine(registry):
    found = {cell.label: cell.settings["measure"]["engine"] for cell in registry.cells(text=SPEED)}
    assert found == {
        "fp32/dense": "quick:bits=32",
        "int8/dense": "quick:bits=8",
        "0.5/fp32": "quick:bits=32",
        "0.5/int8": "quick:bits=8",
        "0.75/fp32": "quick:bits=32",
        "0.75/int8": "quick:bits=8",
    }


def test_an_entry_that_measures_evaluates_what_it_names_alone(registry):
    entry = registry.read(text=SPEED)
    assert entry.evaluations == () and entry.judged == ("measure",)
    assert all(cell.settings["evaluate"] == {} for cell in cells(entry))
    both = registry.read(("measure:", "evaluate: {bleu: {limit: 3}}\nmeasure:"), text=SPEED)
    assert both.judged == ("bleu", "measure")
    assert registry.read().judged == ("translation",)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("{batch: 2}", "{batch: 0}", 6, "measure.batch"),
        ("{batch: 2}", "{tokens: 1}", 6, "measure.tokens"),
        ("{batch: 2}", "{bach: 2}", 6, "batch"),
        ("{batch: 2}", "{against: torch_dens}", 6, "torch_dense"),
        ("bits=8", "bit=8", 11, "bits"),
        ("measure.engine: quick}", "measure.engin: quick}", 10, "measure.engine"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old, new, line, said, registry):
    where, problem = registry.one((old, new), text=SPEED)
    assert where == line and said in str(problem)


def test_no_evaluation_is_called_as_a_section_is(registry):
    _, problem = registry.one(("measure:", "evaluate: {measure: {limit: 3}}\nmeasure:"), text=SPEED)
    assert "'measure' cannot name an evaluation" in str(problem)


def test_a_setting_of_it_can_be_overridden(registry):
    cell = registry.cells(text=SPEED, set=("measure.threads=4",))[0]
    assert cell.settings["measure"]["threads"] == 4


def test_the_baseline_follows_the_engine_of_each_cell(registry):
    text = SPEED.replace('int8: {measure.engine: "quick:bits=8"}', "int8: {measure.engine: fast}")
    found = {cell.label: cell.settings["measure"]["against"] for cell in registry.cells(text=text)}
    assert found["0.5/fp32"] == "torch_dense:dtype=float32" and found["0.5/int8"] == "torch_dense:dtype=bfloat16"
    given = text.replace("measure: {batch: 2}", "measure: {batch: 2, against: torch_dense}")
    found = {cell.label: cell.settings["measure"]["against"] for cell in registry.cells(text=given)}
    assert set(found.values()) == {"torch_dense:dtype=float32"}
