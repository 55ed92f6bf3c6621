"""`harness quantize`: the settings of a section, and a folder that is whole or absent."""

from __future__ import annotations

import json

import pytest
import torch

from harness import models, rooms
from harness.oneoff import quantize as quantize
from harness.problems import Problem
from harness.quantization import codes
from harness.spec.sections import Quantize

TEXTS = ["Once upon a time there was a cat. It sat on a mat and slept."] * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "llama"
    models.save(*rooms.load("model", "llama").tiny(TEXTS, seed=0), folder)
    return folder


@pytest.fixture
def ids(tmp_path):
    """A file of 8 rows of 24 token ids."""
    path, draw = tmp_path / "ids.jsonl", torch.Generator().manual_seed(0)
    rows = torch.randint(4, 60, (8, 24), generator=draw).tolist()
    path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    return path


def test_the_settings_are_those_of_the_section():
    options = quantize.section({"rounding": None, "bits": 4, "skip": []}, None)
    assert options.keys() == Quantize.model_fields.keys() and options["bits"] == 4 and options["rounding"] == "rtn"
    with pytest.raises(Problem, match="bits: should be at most 8"):
        quantize.section({"bits": 9}, None)
    with pytest.raises(Problem, match="unknown rounding 'gtpq'"):
        quantize.section({"rounding": "gtpq"}, None)


@pytest.mark.parametrize("given", [{"rounding": "gptq"}, {"smooth": 0.5}, {"activations": "static"}])
def test_what_looks_at_data_must_be_given_some(given, ids):
    with pytest.raises(Problem, match="looks at calibration data, and none is given"):
        quantize.section(given, None)
    assert quantize.section(given, str(ids), length=24)["data"].startswith("jsonl:path=")


def test_a_model_becomes_a_folder(tmp_path, model, ids, capsys):
    given = {"rounding": "gptq", "activations": "dynamic", "smooth": 0.5, "samples": 8}
    out = tmp_path / "new" / "out"
    quantize.command(str(model), out, quantize.section(given, str(ids), length=24))
    codes.verify(models.load(out), codes.load(out))
    said = capsys.readouterr().out
    assert "28, " in said and "8-bit inputs (dynamic)" in said and str(out) in said
    with pytest.raises(Problem, match="this folder is not empty"):
        quantize.command(str(model), out, quantize.section({}, None))


def test_a_mistake_leaves_nothing(tmp_path, model):
    out = tmp_path / "new" / "out"
    with pytest.raises(Problem, match="matches no layer"):
        quantize.command(str(model), out, quantize.section({"skip": ["*.down"]}, None))
    with pytest.raises(Problem, match="made by an experiment"):
        quantize.command("tiny/llama", out, quantize.section({}, None))
    assert not (tmp_path / "new").exists()
