from __future__ import annotations

import json

import pytest

from harness import models
from harness.bench import load
from harness.inference.kernels import build
from harness.problems import Problem

pytestmark = pytest.mark.skipif(build.reason() is not None, reason=str(build.reason()))


@pytest.fixture
def folder(tmp_path):
    from harness.models import llama

    model, processor = llama.tiny(["a few words to train a tokenizer on"] * 8, seed=0)
    models.save(model, processor, tmp_path / "model")
    return tmp_path / "model"


def test_the_record_and_its_table(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "load.json"
    load.command(str(folder), ["bitmask:int8", "bitmask:int8+head", "slot:slots=8:fp16"], 0.75, repeats=2, out=out)
    said = json.loads(out.read_text())
    dense, bitmask, head, slot = said["rows"]
    names = ["dense fp16", "bitmask int8", "bitmask int8, int8 head", "slot:slots=8 fp16"]
    assert [row["name"] for row in said["rows"]] == names
    assert dense["smaller"] == dense["linears_smaller"] == dense["cached"]["faster"] == dense["disk"]["faster"] == 1
    for row in said["rows"]:
        assert 0 < row["linears"] <= row["bytes"]
        assert all(0 < row[kind]["seconds"]["min"] <= row[kind]["seconds"]["median"] for kind in ("cached", "disk"))
    assert head["linears"] == bitmask["linears"] < slot["linears"] and head["bytes"] < bitmask["bytes"]
    assert bitmask["smaller"] == pytest.approx(dense["bytes"] / bitmask["bytes"])
    assert "| bitmask int8 |" in out.with_suffix(".md").read_text()
    assert "slot:slots=8 fp16" in capsys.readouterr().out


@pytest.mark.parametrize(
    "form, said",
    [
        ("bitmask", "cannot read the form 'bitmask'"),
        ("bitmask:int8+heads", "cannot read the form"),
        ("bitmask:int8+", "cannot read the form"),
        ("bitmaks:int8", "did you mean 'bitmask'"),
        ("bitmask:int4", "unknown precision"),
        ("hf-dense:fp32", "not a packed form"),
    ],
)
def test_mistakes_are_found_before_anything_runs(form, said, tmp_path):
    with pytest.raises(Problem, match=said):
        load.command("no-such-model", [form], out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
