from __future__ import annotations

import pytest
import torch

from harness import models
from harness.problems import Problem
from harness.quantization.inputs import observe

READERS = {
    "llama": {"input_layernorm": {"q_proj", "k_proj", "v_proj"}, "post_attention_layernorm": {"gate_proj", "up_proj"}},
    "mpt": {"norm_1": {"Wqkv"}, "norm_2": {"up_proj"}},
    "opt": {"self_attn_layer_norm": {"q_proj", "k_proj", "v_proj"}, "final_layer_norm": {"fc1"}},
    "t5": {"layer_norm": {"q", "k", "v", "wi"}},
    "whisper": {
        "self_attn_layer_norm": {"q_proj", "k_proj", "v_proj"},
        "encoder_attn_layer_norm": {"q_proj"},
        "final_layer_norm": {"fc1"},
    },
    "vit": {"layernorm_before": {"q_proj", "k_proj", "v_proj"}, "layernorm_after": {"fc1"}},
}


@pytest.mark.parametrize("family", READERS)
def test_every_linear_knows_the_norm_it_reads(tiny_models, family):
    model, processor = tiny_models.tiny(family)
    blocks = models.blocks(model)
    seen = observe(model, blocks, tiny_models.batches(family, processor))
    found = {}
    for block in blocks:
        for linear in block.linears:
            norm = seen[linear.name].norm
            assert norm is None or norm.startswith(f"{block.name}.")
            if norm is not None:
                found.setdefault(norm.rpartition(".")[2], set()).add(linear.name.rpartition(".")[2])
    assert found == READERS[family]
    unread = {linear.name for block in blocks for linear in block.linears if seen[linear.name].norm is None}
    cross = [name for name in unread if "ncDecAttention" in name or "encoder_attn" in name]
    assert all(name.rpartition(".")[2] in ("k", "v", "o", "k_proj", "v_proj", "out_proj") for name in cross)


@pytest.mark.parametrize("family", ["llama", "t5", "whisper"])
def test_ranges_are_those_of_the_positions_that_count(tiny_models, family):
    model, processor = tiny_models.tiny(family)
    blocks, batches = models.blocks(model), tiny_models.batches(family, processor)
    tokens = {}
    for batch in batches:
        valid = models.valid(model, batch)

        def hook(module, args, linear, valid=valid):
            tokens.setdefault(linear.name, []).append(args[0][valid[linear.reads]].detach())

        hooks = [
            linear.module.register_forward_pre_hook(lambda m, a, linear=linear: hook(m, a, linear))
            for block in blocks
            for linear in block.linears
        ]
        with torch.no_grad():
            model(**batch)
        for each in hooks:
            each.remove()
    for name, one in observe(model, blocks, batches).items():
        x = torch.cat(tokens[name])
        torch.testing.assert_close(one.low, x.amin(0))
        torch.testing.assert_close(one.high, x.amax(0))
        torch.testing.assert_close(one.largest, x.abs().amax(0))


def test_how_examples_are_batched_changes_nothing(tiny_models):
    model, processor = tiny_models.tiny("llama")
    blocks = models.blocks(model)
    one, other = (observe(model, blocks, tiny_models.batches("llama", processor, size)) for size in (1, 6))
    for name in one:
        torch.testing.assert_close(one[name].low, other[name].low, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one[name].high, other[name].high, rtol=1e-4, atol=1e-5)


def test_the_model_is_left_as_it_was(tiny_models):
    model, processor = tiny_models.tiny("opt")
    model.train()
    observe(model, models.blocks(model), tiny_models.batches("opt", processor))
    assert model.training
    assert not any(each._forward_pre_hooks or each._forward_hooks for each in model.modules())


def test_inputs_that_are_not_finite_and_layers_that_see_none_are_problems(tiny_models):
    model, processor = tiny_models.tiny("llama")
    blocks, batches = models.blocks(model), tiny_models.batches("llama", processor)
    with pytest.raises(Problem, match=r"layers\.0\.self_attn\.q_proj: no calibration token reached"):
        observe(model, blocks, [])
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[3] = torch.inf
    with pytest.raises(Problem, match=r"layers\.1\.self_attn\.q_proj: its inputs are not finite"):
        observe(model, blocks, batches)
