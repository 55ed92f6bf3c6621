"""A quantised model whose inputs are rounded: measuring and exporting take its weights alone, and say so."""

from __future__ import annotations

import json

import pytest

from harness import exported, models
from harness.inference import onnx
from harness.inference.left_out import left_out, sentence
from harness.problems import Problem
from harness.runs.job import Job
from harness.sources import Source
from harness.spec.sections import Quantize
from harness.stages import measure, quantize

READS = {"data": "arithmetic:size=40", "task": "reasoning", "samples": 4, "batch_size": 4}
SETTING = {"batch": 1, "prompt": 8, "tokens": 3, "repeats": 2, "warmup": 0, "threads": 1, "seed": 0}
ENGINE = {"engine": "torch_csr", "against": "torch_dense:dtype=float32"}


@pytest.fixture(scope="module")
def quantised(tmp_path_factory, tiny_models):
    """A function from how inputs are rounded to the folder of a tiny model quantised so."""
    dense, made = tmp_path_factory.mktemp("dense"), {}
    models.save(*tiny_models.tiny("llama"), dense)

    def make(activations):
        if activations not in made:
            made[activations] = tmp_path_factory.mktemp(activations)
            options = Quantize.model_validate({"activations": activations, **READS}).model_dump(mode="json")
            list(quantize.run(Job(options, {"model": dense}, made[activations], tmp_path_factory.mktemp("scratch"))))
        return made[activations]

    return make


@pytest.mark.parametrize("activations", ["static", "dynamic", "none"])
def test_layers_are_counted_by_how_their_inputs_are_rounded(quantised, activations):
    folder = quantised(activations)
    expected = {} if activations == "none" else {activations: 28}
    assert left_out(folder) == left_out(Source("folder", str(folder), "sha256:0", folder)) == expected


@pytest.mark.parametrize("activations", ["static", "none"])
def test_a_measurement_says_it_in_report_table_and_protocol(quantised, tmp_path, activations):
    list(measure.run(Job(SETTING | ENGINE, {"model": quantised(activations)}, tmp_path, tmp_path)))
    report = json.loads((tmp_path / "measure.json").read_text())
    protocols = {score["protocol"] for score in json.loads((tmp_path / "scores.json").read_text()).values()}
    table, said = (tmp_path / "measure.md").read_text(), activations == "static"
    assert report["left_out"] == ({"static": 28} if said else {})
    assert (sentence({"static": 28}) in table) == said and ("Left out" in table) == said
    assert all(("weights alone, static 8-bit inputs left out" in each) == said for each in protocols)


def test_the_commands_say_it_too(harness, quantised, tmp_path):
    given = ("export", quantised("static"), "--format", "bitmask", "--precision", "int8", "--out", tmp_path / "packed")
    status, said, err = harness(*given)
    assert status == 0 and "Left out: the 8-bit inputs of 28 layers (static)" in said, err
    assert left_out(tmp_path / "packed") == {"static": 28}
    fast = ("--engine", "torch_csr", "--tokens", 2, "--prompt", 4, "--repeats", 1, "--threads", 1)
    status, said, err = harness("measure", tmp_path / "packed", *fast, "--out", tmp_path / "timed")
    assert status == 0 and "Left out: the 8-bit inputs of 28 layers (static)" in said, err
    (tmp_path / "packed" / exported.FILE).write_text("{")
    with pytest.raises(Problem, match="this description of an exported model cannot be read"):
        left_out(tmp_path / "packed")


@pytest.mark.parametrize("format", ["hf-dense", "onnx"])
def test_a_form_of_others_says_it_beside_the_weights(harness, quantised, tmp_path, monkeypatch, format):
    monkeypatch.setattr(onnx, "export", lambda model, folder: (folder / onnx.FILE).write_bytes(b""))
    for activations, expected in (("static", {"static": 28}), ("none", {})):
        folder = tmp_path / activations
        status, said, err = harness("export", quantised(activations), "--format", format, "--out", folder)
        assert status == 0 and ("Left out" in said) == bool(expected), err
        report = json.loads((folder / exported.FILE).read_text())
        assert report["format"] == format and report.get("left_out", {}) == left_out(folder) == expected
        assert not exported.is_packed(folder)


def test_what_is_made_of_a_plain_form_says_it_too(harness, quantised, tmp_path):
    for made_of, out, format in ((quantised("static"), "plain", "hf-dense"), (tmp_path / "plain", "packed", "bitmask")):
        status, said, err = harness("export", made_of, "--format", format, "--out", tmp_path / out)
        assert status == 0 and "Left out: the 8-bit inputs of 28 layers (static)" in said, err
    assert left_out(tmp_path / "packed") == {"static": 28}
