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
    asked, info = [], {"missing_keys": set(), "mismatched_keys": set()}
    real = models.transformers.AutoConfig.from_pretrained

    def from_pretrained(name, **options):
        asked.append((name, options))
        return real(saved[2])

    monkeypatch.setattr(models.transformers.AutoConfig, "from_pretrained", from_pretrained)
    monkeypatch.setattr(
        models.transformers.AutoModelForSeq2SeqLM,
        "from_pretrained",
        lambda name, **options: asked.append((name, options)) or (saved[0], info),
    )
    models.load(Source("hub", "org/name", "abc123"))
    assert asked == [
        ("org/name", {"revision": "abc123"}),
        ("org/name", asked[1][1] | {"revision": "abc123", "dtype": torch.float32}),
    ]


@pytest.mark.parametrize(("family", "causal"), [("llama", True), ("t5", False), ("whisper", False), ("vit", False)])
def test_only_language_models_without_an_encoder_are_causal(tiny_models, family, causal):
    model, _ = tiny_models.tiny(family)
    assert models.causal(model) == causal


def configure(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("family", ["t5", "llama", "mpt", "opt", "vit", "whisper"])
def test_every_family_loads_what_it_saved(tiny_models, tmp_path, family):
    model, processor = tiny_models.tiny(family)
    models.save(model, processor, tmp_path)
    loaded = models.load(tmp_path).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("changes", [{"num_decoder_layers": 5}, {"d_ff": 7}])
def test_weights_that_the_checkpoint_lacks_are_a_problem(saved, changes):
    configure(saved[2], **changes)
    with pytest.raises(Problem, match=r"\d+ of the model's weights are not.*: decoder\.block\.\d+\.layer") as caught:
        models.load(saved[2])
    assert str(saved[2]) in str(caught.value)


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
    ids=["truncated", "config", "no weights"],
)
def test_files_that_transformers_cannot_read_are_a_problem(saved, damage):
    damage(saved[2])
    with pytest.raises(Problem, match=r"transformers cannot load the model here: \w+") as caught:
        models.load(saved[2])
    assert str(saved[2]) in str(caught.value)


def test_a_processor_that_is_broken_or_not_there_is_a_problem(saved):
    folder = saved[2]
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(Problem, match="transformers cannot load the processor here"):
        models.load_processor(folder)
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(Problem, match="this model has no tokenizer: none of") as caught:
        models.load_processor(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"d_kv": "x"}),
        ("config.json", {"dtype": "float99"}),
        ("generation_config.json", []),
        ("tokenizer.json", None),
        ("tokenizer_config.json", []),
    ],
)
def test_whatever_transformers_says_is_a_problem(saved, file, content):
    folder = saved[2]
    before = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**before, **content} if isinstance(content, dict) else content))
    with pytest.raises(Problem, match=r"transformers cannot load the (model|processor) here: ") as caught:
        models.load(folder)
        models.load_processor(folder)
    assert caught.value.where == str(folder) and len(str(caught.value)) < 1200
