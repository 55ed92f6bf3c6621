from __future__ import annotations

import torch
from transformers import MT5Config, MT5ForConditionalGeneration

from harness import models
from harness.models import t5


def test_cross_attention_keys_and_values_read_the_encoder(tiny_models):
    model, _ = tiny_models.tiny("t5")
    blocks = t5.blocks(model)
    assert [b.stack for b in blocks] == ["encoder"] * 2 + ["decoder"] * 2
    assert [len(b.linears) for b in blocks] == [6, 6, 10, 10]
    crossing = {n for b in blocks for n in (x.name for x in b.linears if b.stack == "decoder" and x.reads == "encoder")}
    assert crossing == {f"decoder.block.{i}.layer.1.EncDecAttention.{p}" for i in range(2) for p in "kv"}


def test_valid_positions():
    batch = {
        "input_ids": torch.tensor([[5, 6, 1], [5, 1, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "labels": torch.tensor([[7, 1], [1, -100]]),
    }
    valid = t5.valid(None, batch)
    assert valid["encoder"].tolist() == [[True, True, True], [True, True, False]]
    assert valid["decoder"].tolist() == [[True, True], [True, False]]
    del batch["attention_mask"]
    assert t5.valid(None, batch)["encoder"].all()


def test_the_tokenizer_ends_texts(tiny_models):
    _, tokenizer = tiny_models.tiny("t5")
    assert tokenizer("x").input_ids[-1] == tokenizer.eos_token_id
    assert tokenizer(text_target="x").input_ids[-1] == tokenizer.eos_token_id


def test_mt5_is_of_this_family():
    config = MT5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    blocks = models.blocks(MT5ForConditionalGeneration(config))
    assert [x.name.rpartition(".")[2] for x in blocks[0].linears] == ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]
