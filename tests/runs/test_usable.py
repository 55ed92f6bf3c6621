from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.problems import Problem
from harness.runs import usable


@pytest.fixture
def folder(tmp_path):
    """Writes a folder that looks like a model of a family; `without` leaves files out."""

    def write(model_type="t5", *without, **more):
        files = {
            "config.json": json.dumps({"model_type": model_type}),
            "model.safetensors": "weights",
            "tokenizer.json": "{}",
            "preprocessor_config.json": "{}",
            **{name.replace("__", "."): text for name, text in more.items()},
        }
        for name, text in files.items():
            if name not in without:
                (tmp_path / name).write_text(text)
        return tmp_path

    return write


def refused(folder: Path) -> str:
    with pytest.raises(Problem) as caught:
        usable.check(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("model_type", ["t5", "whisper", "mpt", "llama"])
def test_a_whole_folder_gives_its_config(folder, model_type):
    assert usable.check(folder(model_type)) == {"model_type": model_type}


@pytest.mark.parametrize(
    ("model_type", "without", "said"),
    [
        ("t5", "config.json", "this config cannot be read"),
        ("t5", "model.safetensors", "this model has no weights: none of model.safetensors"),
        ("t5", "tokenizer.json", "this model has no tokenizer: none of tokenizer.json"),
        ("whisper", "tokenizer.json", "this model has no tokenizer"),
        ("whisper", "preprocessor_config.json", "this model has no feature extractor"),
    ],
)
def test_what_is_missing_is_named(folder, model_type, without, said):
    assert said in refused(folder(model_type, without))


def test_a_text_model_needs_no_feature_extractor(folder):
    usable.check(folder("llama", "preprocessor_config.json"))


def test_an_unknown_type_is_named_with_the_nearest(folder):
    said = refused(folder("lama"))
    assert "unknown model type 'lama'" in said and "'llama'" in said and "config.json" in said


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_config_is_a_problem(folder, text):
    refused(folder(config__json=text))


@pytest.mark.parametrize(
    ("weights", "said"),
    [("", "empty file"), ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS")],
)
def test_weights_that_are_none_are_found(folder, weights, said):
    assert said in refused(folder(model__safetensors=weights))


def test_every_part_that_an_index_names_must_be_here(folder):
    index = json.dumps(
        {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    )
    place = folder("t5", "model.safetensors", model__safetensors__index__json=index)
    (place / "model-1.safetensors").write_text("weights")
    assert "model-2.safetensors: this part of the model's weights is not here" in refused(place)
    (place / "model-2.safetensors").write_text("weights")
    usable.check(place)
    (place / "model.safetensors.index.json").write_text("{}")
    assert "index of weights cannot be read" in refused(place)
