from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from harness import models
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


@pytest.mark.parametrize("name", ["vocab.txt", "processor_config.json"])
def test_planning_and_loading_ask_for_the_same_files(folder, name):
    """One list: `models` had its own, which knew no vocab.txt and took a processor's file for a tokenizer."""
    place = folder("llama", "tokenizer.json", "preprocessor_config.json")
    (place / name).write_text("{}")
    said = []
    for looks in (usable.check, models.load_processor):
        try:
            looks(place)
            said.append(None)
        except Problem as problem:
            said.append("this model has no tokenizer" in problem.what)
    assert said == ([None, False] if name == "vocab.txt" else [True, True])


def test_a_text_model_needs_no_feature_extractor(folder):
    usable.check(folder("llama", "preprocessor_config.json"))


def test_an_unknown_type_is_named_with_the_nearest(folder):
    said = refused(folder("lama"))
    assert "unknown model type 'lama'" in said and "'llama'" in said and "config.json" in said


@pytest.mark.parametrize("value", [-1, 0, "x", 1.5, True, [128]])
def test_a_size_that_is_none_is_named(folder, value):
    config = json.dumps({"model_type": "llama", "hidden_size": value, "max_position_embeddings": None})
    said = refused(folder("llama", config__json=config))
    assert f"config.json: hidden_size should be a whole number, at least 1, not {value!r}" in said


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_config_is_a_problem(folder, text):
    refused(folder(config__json=text))


@pytest.mark.parametrize(
    ("weights", "said"),
    [("", "empty file"), ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS")],
)
def test_weights_that_are_none_are_found(folder, weights, said):
    assert said in refused(folder(model__safetensors=weights))


def test_a_packed_model_is_said_to_be_one(folder):
    place = folder(
        "llama",
        "model.safetensors",
        export__json='{"version": 2, "format": "bitmask", "precision": "int8", "xxh3": {}}',
    )
    said = refused(place)
    assert "this model is packed" in said and f"harness export {place} --format hf-dense" in said


@pytest.mark.parametrize("less", [1, 80])
def test_weights_that_were_cut_off_are_found_before_anything_is_loaded(folder, less):
    place = folder("llama")
    save_file({"a": numpy.zeros((4, 5), "float32"), "b": numpy.zeros(3, "int8")}, place / "model.safetensors")
    usable.check(place)
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[:-less])
    said = refused(place)
    assert f"bytes long and should be {len(whole):,}" in said and "copy the file again" in said


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
