from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from harness import models
from harness.problems import Problem
from harness.sources import Source


@pytest.fixture
def saved(tiny_models, tmp_path):
    model, tokenizer = tiny_models.tiny("t5")
    models.save(model, tokenizer, tmp_path)
    return model, tokenizer, tmp_path


def test_family_of_a_model_a_config_and_a_folder(saved):
    model, _, folder = saved
    families = {models.family(each) for each in (model, model.config, folder, str(folder))}
    assert {family.__name__ for family in families} == {"harness.models.t5"}


def test_an_unknown_model_type_lists_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "lama"}))
    with pytest.raises(Problem, match="unknown model type 'lama'") as caught:
        models.family(tmp_path)
    assert "llama" in caught.value.nearest and "whisper" in caught.value.hint


def test_a_folder_without_a_model_is_a_problem(tmp_path):
    with pytest.raises(Problem, match="no model here"):
        models.family(tmp_path)


def test_a_model_without_prunable_linears_is_a_problem(tiny_models):
    model, _ = tiny_models.tiny("llama")
    for layer in model.model.layers:
        layer.self_attn = layer.mlp = nn.Identity()
    with pytest.raises(Problem, match="LlamaForCausalLM has no prunable linear layer in its 4 blocks"):
        models.blocks(model)


def test_load_takes_a_folder_or_a_source(saved):
    model, tokenizer, folder = saved
    source = Source("folder", folder.name, "sha256:0", folder)
    for origin in (folder, str(folder), source):
        loaded = models.load(origin)
        assert not loaded.training and loaded.dtype == torch.float32
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
        assert models.load_processor(origin)("a b").input_ids == tokenizer("a b").input_ids


def test_load_in_another_precision(saved):
    assert models.load(saved[2], dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(Problem, match="unknown dtype 'float33'"):
        models.load(saved[2], dtype="float33")


def test_a_hub_source_is_asked_for_by_name_and_revision(saved, monkeypatch):
    asked = []
    real = models.transformers.AutoConfig.from_pretrained

    def from_pretrained(name, **options):
        asked.append((name, options))
        return real(saved[2])

    monkeypatch.setattr(models.transformers.AutoConfig, "from_pretrained", from_pretrained)
    monkeypatch.setattr(
        models.transformers.AutoModelForSeq2SeqLM,
        "from_pretrained",
        lambda name, **options: asked.append((name, options)) or saved[0],
    )
    models.load(Source("hub", "org/name", "abc123"))
    assert asked == [
        ("org/name", {"revision": "abc123"}),
        ("org/name", {"revision": "abc123", "dtype": torch.float32}),
    ]
