from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from harness import models
from harness.models import llama
from harness.problems import Problem
from harness.pruning.walk import walk

PROMPT = {"input_ids": torch.arange(3, 9).view(1, 6), "attention_mask": torch.ones(1, 6, dtype=torch.long)}


@pytest.fixture(params=llama.MODEL_TYPES)
def kin(request):
    config = CONFIG_MAPPING[request.param](
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def test_every_kin_keeps_its_blocks_where_this_file_looks(kin):
    blocks = models.blocks(kin)
    linears = [linear for block in blocks for linear in block.linears]
    prunable = {linear.module for linear in linears}
    others = [n for n, m in kin.named_modules() if isinstance(m, torch.nn.Linear) and m not in prunable]
    assert len(blocks) == 2 and others == ["lm_head"]
    assert llama.norms(kin)["decoder"] is kin.model.norm
    assert {linear.part: "mlp" in linear.name for linear in linears} == {"attention": False, "feed_forward": True}


def test_the_walk_over_every_kin_gives_each_layers_gram_matrix(kin):
    fed = {}
    linears = [linear for block in models.blocks(kin) for linear in block.linears]
    for linear in linears:
        linear.module.register_forward_pre_hook(lambda _, args, name=linear.name: fed.update({name: args[0][0]}))
    with torch.no_grad():
        kin(**PROMPT)
    fed, found = dict(fed), {}
    for _, inputs in walk(kin, [PROMPT], ("gram",)):
        found |= inputs
    assert found.keys() == fed.keys()
    for name, x in fed.items():
        torch.testing.assert_close(found[name]["gram"], x.T @ x / 6, rtol=1e-4, atol=1e-6)


def test_every_kin_is_saved_loaded_and_generates_the_same(kin, tiny_models, tmp_path):
    models.save(kin, tiny_models.tiny("llama")[1], tmp_path)
    loaded = models.load(tmp_path)
    assert type(loaded) is type(kin)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in kin.state_dict().items())
    first, second = (each.generate(**PROMPT, max_new_tokens=5, do_sample=False) for each in (kin, loaded))
    assert torch.equal(first, second) and first.shape[1] > PROMPT["input_ids"].shape[1]


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "gpt_neox"])
def test_another_architecture_is_refused_by_name(kind):
    with pytest.raises(Problem, match=f"unknown model type '{kind}'") as caught:
        models.family(CONFIG_MAPPING[kind]())
    assert "llama" in str(caught.value)


def test_valid_positions():
    ids = torch.tensor([[0, 5, 6], [4, 5, 6]])
    assert llama.valid(None, {"input_ids": ids})["decoder"].all()
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert llama.valid(None, {"input_ids": ids, "attention_mask": mask})["decoder"].tolist() == mask.bool().tolist()


def test_key_value_heads_are_shared(tiny_models):
    model, tokenizer = tiny_models.tiny("llama")
    shapes = [tuple(linear.module.weight.shape) for linear in models.blocks(model)[0].linears]
    assert shapes == [(128, 128), (64, 128), (64, 128), (128, 128), (384, 128), (384, 128), (128, 384)]
    assert tokenizer("x").input_ids[0] == tokenizer.bos_token_id
