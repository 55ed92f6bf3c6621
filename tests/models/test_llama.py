from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from harness import models
from harness.models import llama
from harness.pruning.walk import walk


@pytest.mark.parametrize("kind", llama.MODEL_TYPES)
def test_every_kin_keeps_its_blocks_where_this_file_looks(kind):
    config = CONFIG_MAPPING[kind](
        vocab_size=60,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = AutoModelForCausalLM.from_config(config)
    blocks = models.blocks(model)
    prunable = {linear.module for block in blocks for linear in block.linears}
    others = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m not in prunable]
    assert len(blocks) == 2 and others == ["lm_head"]
    assert llama.norms(model)["decoder"] is model.model.norm
    batch = {"input_ids": torch.arange(6).view(1, 6), "attention_mask": torch.ones(1, 6)}
    assert len(list(walk(model, [batch], ("norm",)))) == 2


def test_valid_positions():
    ids = torch.tensor([[0, 5, 6], [4, 5, 6]])
    assert llama.valid({"input_ids": ids})["decoder"].all()
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert llama.valid({"input_ids": ids, "attention_mask": mask})["decoder"].tolist() == mask.bool().tolist()


def test_key_value_heads_are_shared(tiny_models):
    model, tokenizer = tiny_models.tiny("llama")
    shapes = [tuple(linear.module.weight.shape) for linear in models.blocks(model)[0].linears]
    assert shapes == [(128, 128), (64, 128), (64, 128), (128, 128), (384, 128), (384, 128), (128, 384)]
    assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id
