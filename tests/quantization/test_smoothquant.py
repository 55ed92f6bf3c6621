from __future__ import annotations

import copy

import pytest
import torch
from transformers import Olmo2Config, Olmo2ForCausalLM
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm

from harness import models
from harness.problems import Problem
from harness.quantization.activations import Dynamic
from harness.quantization.grid import spread
from harness.quantization.inputs import observe
from harness.quantization.smoothquant import fold, scales, smooth

NORMS = {"llama": 8, "mpt": 6, "opt": 6, "t5": 10, "whisper": 10, "vit": 8}
"""How many norms of the tiny model feed linears."""


def rough(model):
    """Makes norms differ by column, so that there is something to smooth."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in models.blocks(model):
            for module in block.module.modules():
                weight = getattr(module, "weight", None)
                if weight is not None and weight.dim() == 1:
                    weight.mul_(1 + 8 * torch.rand(weight.shape, generator=generator) ** 8)
                    if getattr(module, "bias", None) is not None:
                        module.bias.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def smoothed(tiny_models, family, alpha=0.5):
    model, processor = tiny_models.tiny(family)
    before, batches = rough(model), tiny_models.batches(family, processor)
    model = copy.deepcopy(before)
    blocks = models.blocks(model)
    seen = observe(model, blocks, batches)
    linears = [linear for block in blocks for linear in block.linears]
    return before, model, smooth(model, blocks, seen, alpha, linears, batches[0]), batches


@pytest.mark.parametrize("family", NORMS)
def test_the_function_stays_and_the_weights_change(tiny_models, family):
    before, after, folded, batches = smoothed(tiny_models, family)
    assert len(folded) == NORMS[family]
    with torch.no_grad():
        for batch in batches:
            one, other = before(**batch).logits, after(**batch).logits
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4 * float(one.abs().max()))
    assert all(not torch.equal(before.get_submodule(n).weight, after.get_submodule(n).weight) for n in folded)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75])
def test_the_scale_is_that_of_the_paper(tiny_models, alpha):
    before, after, folded, batches = smoothed(tiny_models, "llama", alpha)
    seen = observe(before, models.blocks(before), batches)
    for index, block in enumerate(before.model.layers):
        attention, name = block.self_attn, f"model.layers.{index}.self_attn.q_proj"
        largest = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]).abs().amax(0)
        s = seen[name].largest.pow(alpha) / largest.pow(1 - alpha)
        torch.testing.assert_close(folded[f"model.layers.{index}.input_layernorm"], s)
        moved = after.model.layers[index]
        torch.testing.assert_close(moved.self_attn.k_proj.weight, attention.k_proj.weight * s)
        torch.testing.assert_close(moved.input_layernorm.weight, block.input_layernorm.weight / s)
        assert torch.equal(moved.self_attn.o_proj.weight, attention.o_proj.weight)
    if alpha == 0.5:
        now = observe(after, models.blocks(after), batches)
        weights = [after.get_submodule(f"model.layers.0.self_attn.{n}_proj").weight for n in "qkv"]
        torch.testing.assert_close(
            now["model.layers.0.self_attn.q_proj"].largest, torch.cat(weights).abs().amax(0), rtol=1e-3, atol=1e-4
        )


def test_zeros_stay_and_columns_without_a_weight_or_an_input_are_left_alone():
    weight = torch.randn(6, 4)
    weight[:, 1] = 0
    weight[2, 0] = 0
    s = scales(torch.tensor([100.0, 50.0, 0.0, 4.0]), [weight], 0.5)
    assert s[1] == s[2] == 1 and s[0] > s[3]
    norm, linear = torch.nn.LayerNorm(4), torch.nn.Linear(4, 6)
    linear.weight.data = weight.clone()
    fold(norm, [linear], s)
    assert torch.equal(linear.weight == 0, weight == 0)


def test_gemmas_norm_adds_one_to_its_weight():
    norm, linear, x = GemmaRMSNorm(8), torch.nn.Linear(8, 3), torch.randn(5, 8)
    norm.weight.data.uniform_(-0.5, 0.5)
    with torch.no_grad():
        before = linear(norm(x))
        fold(norm, [linear], torch.rand(8) + 0.5)
        torch.testing.assert_close(linear(norm(x)), before, rtol=1e-4, atol=1e-5)


def test_outliers_cost_less_when_they_are_smoothed():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(200, 64, generator=generator), torch.randn(32, 64, generator=generator)
    x[:, 7] *= 60
    s = scales(x.abs().amax(0), [weight], 0.5)

    def error(inputs, w):
        grid = spread(w, 8)
        return float((Dynamic()(inputs) @ grid.decode(grid.encode(w)).T - x @ weight.T).norm() / (x @ weight.T).norm())

    assert error(x / s, weight * s) < 0.5 * error(x, weight)


def test_only_norms_that_quantised_layers_read_are_touched(tiny_models):
    model, processor = tiny_models.tiny("llama")
    blocks, batches = models.blocks(model), tiny_models.batches("llama", processor)
    down = [linear for block in blocks for linear in block.linears if linear.name.endswith(("down_proj", "o_proj"))]
    before = copy.deepcopy(model.state_dict())
    assert smooth(model, blocks, observe(model, blocks, batches), 0.5, down, batches[0]) == {}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_whose_norms_follow_its_layers_is_a_problem(tiny_models):
    _, processor = tiny_models.tiny("llama")
    config = Olmo2Config(
        vocab_size=len(processor), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    model = Olmo2ForCausalLM(config).eval()
    blocks, batches = models.blocks(model), tiny_models.batches("llama", processor)
    seen = observe(model, blocks, batches)
    linears = [linear for block in blocks for linear in block.linears]
    with pytest.raises(Problem, match=r"model\.layers\.0: these layers cannot be smoothed.*self_attn\.q_proj"):
        smooth(model, blocks, seen, 0.5, linears, batches[0])


def test_a_norm_that_is_read_elsewhere_too_is_a_problem(tiny_models, monkeypatch):
    model, processor = tiny_models.tiny("llama")
    blocks, batches = models.blocks(model), tiny_models.batches("llama", processor)
    rough(model)
    layer = model.model.layers[1]
    forward = layer.mlp.forward
    monkeypatch.setattr(layer.mlp, "forward", lambda x: forward(x) + x)
    linears = [linear for block in blocks for linear in block.linears]
    with pytest.raises(Problem, match="smoothing changed what the decoder puts out"):
        smooth(model, blocks, observe(model, blocks, batches), 0.5, linears, batches[0])
