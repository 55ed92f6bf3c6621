"""The `quantize` section in an entry, in the rooms of the house: settings, axes, the cells it makes, baselines."""

from __future__ import annotations

import pytest

from harness.spec import entry as spec
from harness.spec.grid import cells
from harness.spec.sections import Quantize

TEXT = """\
title: a table
model: tiny/mpt
data: arithmetic
task: reasoning
prepare: {steps: 4, lr: 1e-3}
prune: {criterion: magnitude, sparsity: 0.5}
tune: {steps: 2, lr: 1e-3, loss: cross_entropy}
quantize: {rounding: gptq}
"""
WITHOUT_TUNE = TEXT.replace("tune: {steps: 2, lr: 1e-3, loss: cross_entropy}\n", "")
ALONE = WITHOUT_TUNE.replace("prune: {criterion: magnitude, sparsity: 0.5}\n", "")


@pytest.fixture
def entry(tmp_path):
    def read(text, **changes):
        (tmp_path / "table.yaml").write_text(text)
        return spec.read("table", root=tmp_path, **changes)

    return read


@pytest.fixture
def problems(tmp_path):
    def check(text):
        (tmp_path / "table.yaml").write_text(text)
        return [str(problem) for problem in spec.check("table", tmp_path)]

    return check


def test_defaults_are_written_out_and_data_and_task_inherited(entry):
    [found] = [cell.settings["quantize"] for cell in cells(entry(TEXT)) if cell.baseline is None]
    assert found.keys() == Quantize.model_fields.keys()
    assert found["rounding"] == "gptq:block=128,damping=0.01,order=false"
    assert found["data"].startswith("arithmetic") and found["task"].startswith("reasoning")
    assert (found["bits"], found["activations"], found["smooth"], found["skip"]) == (8, "none", None, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rounding: gtpq", "quantize.rounding: unknown rounding 'gtpq'"),
        ("bits: 1", "quantize.bits: should be at least 2, not 1"),
        ("bits: 9", "quantize.bits: should be at most 8, not 9"),
        ("smooth: 1.5", "quantize.smooth: should be at most 1, not 1.5"),
        ("group: 0", "quantize.group: should be at least 1, not 0"),
        ("activations: token", "quantize.activations: should be 'none', 'dynamic' or 'static', not 'token'"),
        ("method: gptq", "unknown key 'quantize.method'"),
        ("task: zero_shot", "quantize.task: task 'zero_shot' only evaluates"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(problems, change, said):
    [found] = problems(TEXT.replace("rounding: gptq", change))
    assert said in found and "table.yaml:8" in found


def test_cells_are_named_by_their_last_stage(entry):
    for text, last, seed in ((TEXT, "quantized", 0), (WITHOUT_TUNE, "quantized", 0), (ALONE, "quantized", None)):
        [cell] = [cell for cell in cells(entry(text)) if cell.baseline is None]
        assert (cell.label, cell.seed) == (last, seed) and cell.settings["quantize"] is not None


def test_no_baseline_is_quantised(entry):
    labels = {}
    for name, text in (("tuned", TEXT), ("pruned", WITHOUT_TUNE), ("dense", ALONE)):
        baselines = [cell for cell in cells(entry(text)) if cell.baseline]
        assert all(cell.settings["quantize"] is None for cell in baselines)
        labels[name] = [cell.label for cell in baselines]
    assert labels == {"tuned": ["dense", "one_shot"], "pruned": ["dense", "one_shot"], "dense": ["dense"]}


def test_its_settings_are_axes_and_null_leaves_it_out(entry):
    grid = "grid:\n  quantize.bits: [4, 8]\n  quantize.smooth: {plain: null, smooth: 0.5}\n"
    found = {c.label: c.settings["quantize"] for c in cells(entry(TEXT + grid)) if not c.baseline}
    assert {label: (one["bits"], one["smooth"]) for label, one in found.items()} == {
        "4/plain": (4, None), "4/smooth": (4, 0.5), "8/plain": (8, None), "8/smooth": (8, 0.5)
    }  # fmt: skip
    free = "grid:\n  bits: {fp32: {quantize: null}, w4: {quantize.bits: 4}}\nbaselines: [one_shot]\n"
    found = cells(entry(TEXT + free))
    assert [cell.label for cell in found] == ["one_shot", "fp32", "w4"]
    assert found[1].settings["quantize"] is None and found[2].settings["quantize"]["bits"] == 4
    [changed] = [c for c in cells(entry(TEXT, set=["quantize.activations=dynamic"])) if not c.baseline]
    assert changed.settings["quantize"]["activations"] == "dynamic"
