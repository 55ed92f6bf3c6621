from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

from harness import models
from harness.models import opt
from harness.problems import Problem
from harness.tuning import forward

SMALL = {"vocab_size": 60, "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def like_350m():
    """Post-norm blocks and a word embedding half as wide as they are."""
    return OPTForCausalLM(OPTConfig(**SMALL, word_embed_proj_dim=8, do_layer_norm_before=False)).eval()


def test_blocks(tiny_models):
    model, tokenizer = tiny_models.tiny("opt")
    blocks = opt.blocks(model)
    assert [block.name for block in blocks] == [f"model.decoder.layers.{i}" for i in range(3)]
    names = [(linear.name.rpartition(".")[2], linear.part) for linear in blocks[0].linears]
    assert sorted(names) == sorted(
        [(f"{p}_proj", "attention") for p in ("k", "v", "q", "out")] + [(f"fc{i}", "feed_forward") for i in (1, 2)]
    )
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id == tokenizer.eos_token_id == 2


def test_padding_on_the_left_changes_no_prediction(tiny_models):
    model, tokenizer = tiny_models.tiny("opt")
    alone = tokenizer(["abc"], return_tensors="pt", return_token_type_ids=False)
    padded = tokenizer(["abc", "a longer text"], return_tensors="pt", padding=True, return_token_type_ids=False)
    assert torch.equal(opt.valid(model, padded)["decoder"], padded["attention_mask"].bool())
    assert not opt.valid(model, padded)["decoder"].all() and opt.valid(model, alone)["decoder"].all()
    with torch.no_grad():
        torch.testing.assert_close(model(**padded).logits[0, -1], model(**alone).logits[0, -1], rtol=1e-4, atol=1e-5)


def test_projections_around_the_blocks_stay_dense():
    model = like_350m()
    prunable = {linear.module for block in models.blocks(model) for linear in block.linears}
    dense = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and m not in prunable]
    assert dense == ["model.decoder.project_out", "model.decoder.project_in", "lm_head"]


def test_the_final_norm_of_a_post_norm_model_is_its_last_blocks():
    model = like_350m()
    assert opt.norms(model) == {"decoder": model.model.decoder.layers[1].final_layer_norm}
    ids = torch.arange(6).view(2, 3)
    states = forward.forward(model, {"input_ids": ids, "labels": ids}, forward.stacks(model))
    assert torch.equal(states.norms["decoder"], states.blocks["decoder"][-1])
    with torch.no_grad():
        logits = model.lm_head(model.model.decoder.project_out(states.norms["decoder"]))
    torch.testing.assert_close(logits, states.logits)


def test_a_model_without_any_final_norm_says_so():
    config = OPTConfig(**SMALL)
    config._remove_final_layer_norm = True
    model = OPTForCausalLM(config)
    assert len(opt.blocks(model)) == 2
    with pytest.raises(Problem, match="no norm after its last block"):
        opt.norms(model)
