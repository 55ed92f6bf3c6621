from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoTokenizer

from harness import models, rooms
from harness.bench import truncate
from harness.problems import Problem

TEXTS = ["one two three four five six seven eight"] * 3


@pytest.mark.parametrize("family", ["llama", "mpt", "t5", "whisper"])
def test_the_first_blocks_are_the_models_own(tmp_path, family):
    models.save(*rooms.load("model", family).tiny(TEXTS, seed=0), tmp_path / "full")
    full = truncate.depth(tmp_path / "full")
    folder = truncate.truncate(tmp_path / "full", 1, tmp_path / "one")
    dense, cut = models.load(tmp_path / "full"), models.load(folder)
    stacks = {block.stack for block in models.blocks(dense)}
    assert len(models.blocks(cut)) == len(stacks) and len(models.blocks(dense)) == full * len(stacks)
    for name, weight in cut.named_parameters():
        assert torch.equal(weight, dense.get_parameter(name)), name
    models.load_processor(folder)


def test_weights_in_several_files_become_one(tmp_path):
    model, tokenizer = rooms.load("model", "llama").tiny(TEXTS, seed=0)
    model.save_pretrained(tmp_path / "full", max_shard_size="300KB")
    tokenizer.save_pretrained(tmp_path / "full")
    folder = truncate.truncate(tmp_path / "full", 2, tmp_path / "two")
    assert [path.name for path in folder.glob("*.safetensors*")] == ["model.safetensors"]
    cut = models.load(folder)
    ids = AutoTokenizer.from_pretrained(folder)("one two three", return_tensors="pt").input_ids
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
        assert torch.equal(cut.model.norm(states[2]), cut(ids, output_hidden_states=True).hidden_states[-1])


def test_lists_of_one_item_a_block_are_cut_too(tmp_path):
    models.save(*rooms.load("model", "llama").tiny(TEXTS, seed=0), tmp_path / "full")
    config = json.loads((tmp_path / "full" / "config.json").read_text())
    types = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    (tmp_path / "full" / "config.json").write_text(json.dumps({**config, "layer_types": types}))
    folder = truncate.truncate(tmp_path / "full", 2, tmp_path / "two")
    assert json.loads((folder / "config.json").read_text())["layer_types"] == types[:2]


def test_a_config_without_depth_is_a_problem(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Problem, match="does not say how many blocks"):
        truncate.depth(tmp_path)
