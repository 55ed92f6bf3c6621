from __future__ import annotations

import torch

from harness.models import mpt


def test_blocks(tiny_models):
    model, _ = tiny_models.tiny("mpt")
    blocks = mpt.blocks(model)
    assert [b.name for b in blocks] == [f"transformer.blocks.{i}" for i in range(3)]
    names = [linear.name.rpartition(".")[2] for linear in blocks[0].linears]
    assert names == ["Wqkv", "out_proj", "up_proj", "down_proj"]
    assert model.lm_head.weight is model.transformer.wte.weight


def test_valid_positions():
    ids = torch.tensor([[0, 5, 6], [4, 5, 6]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert mpt.valid(None, {"input_ids": ids, "attention_mask": mask})["decoder"].tolist() == mask.bool().tolist()
    assert mpt.valid(None, {"input_ids": ids})["decoder"].all()
