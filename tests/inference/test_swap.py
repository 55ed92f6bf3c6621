"""Linears found by the input they share, joined, and replaced without a change of what the model computes."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from harness.inference import swap
from harness.inference.greedy import follow, generate
from harness.inference.prompts import prompts
from harness.problems import Problem

FAMILIES = ("t5", "whisper", "mpt", "llama", "opt")
TOGETHER = {
    "t5": [("SelfAttention.q", "SelfAttention.k", "SelfAttention.v"), ("EncDecAttention.k", "EncDecAttention.v")],
    "whisper": [
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    ],
    "mpt": [],
    "llama": [("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")],
    "opt": [("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")],
}


class Product(nn.Module):
    """A linear layer that is no `nn.Linear`."""

    def __init__(self, weight, bias):
        super().__init__()
        self.register_buffer("matrix", weight)
        self.register_buffer("bias", bias)

    def forward(self, x):
        return nn.functional.linear(x, self.matrix, self.bias)


def last_two(name):
    return ".".join(name.split(".")[-2:])


@pytest.mark.parametrize("family", FAMILIES)
def test_those_that_read_one_input_are_found(family, tiny_models):
    model, _ = tiny_models.tiny(family)
    found = swap.groups(model, swap.prunable(model))
    assert sorted(name for group in found for name in group) == sorted(swap.prunable(model))
    assert {tuple(map(last_two, group)) for group in found if len(group) > 1} == set(TOGETHER[family])
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_swapped_model_computes_the_same(family, join, tiny_models):
    model, _ = tiny_models.tiny(family)
    swapped = copy.deepcopy(model)
    names = swap.prunable(swapped)
    swap.swap(swapped, swap.groups(swapped, names) if join else [(name,) for name in names], Product)
    assert not any(isinstance(swapped.get_submodule(name), nn.Linear) for name in names)
    inputs = prompts(model, 2, 6, seed=1)
    tokens = generate(model, inputs, 5).tokens
    torch.testing.assert_close(follow(swapped, inputs, tokens), follow(model, inputs, tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_generates_with_it_as_before(family, tiny_models):
    model, _ = tiny_models.tiny(family)
    swapped = copy.deepcopy(model)
    swap.swap(swapped, swap.groups(swapped, swap.prunable(swapped)), Product)
    inputs = prompts(model, 2, 6, seed=2)
    if family != "whisper":
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    settings = {"max_new_tokens": 6, "num_beams": 2, "do_sample": False}
    assert torch.equal(swapped.generate(**inputs, **settings), model.generate(**inputs, **settings))


def test_parts_never_answer_for_another_input():
    first, second = nn.Linear(4, 3), nn.Linear(4, 2, bias=False)
    layer = swap.Joined(Product(*swap.joined([first, second])), [3, 2])
    a, b = swap.Part(layer, 0), swap.Part(layer, 1)
    x, y = torch.randn(2, 5, 4)
    with torch.no_grad():
        for order in ([(b, x), (b, x)], [(a, x), (b, y), (a, y), (b, x)], [(a, x), (a, x), (b, x)]):
            for part, given in order:
                own = first if part is a else second
                torch.testing.assert_close(part(given), own(given))
            x.mul_(2)
    assert layer.held == {}


def test_each_thread_has_parts_of_its_own():
    first, second = nn.Linear(4, 3), nn.Linear(4, 2)
    layer = swap.Joined(Product(*swap.joined([first, second])), [3, 2])
    a, b = swap.Part(layer, 0), swap.Part(layer, 1)
    x, y = torch.randn(2, 5, 4)
    with torch.no_grad():
        a(x)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(torch.no_grad()(a), y).result()
            torch.testing.assert_close(b(x), second(x))
            torch.testing.assert_close(pool.submit(torch.no_grad()(b), y).result(), second(y))
    assert layer.held == {}


def test_the_product_is_computed_once_for_all_parts():
    calls = []
    layer = nn.Linear(4, 6)
    layer.register_forward_hook(lambda *_: calls.append(1))
    joined = swap.Joined(layer, [2, 2, 2])
    x = torch.randn(1, 4)
    with torch.no_grad():
        got = torch.cat([swap.Part(joined, index)(x) for index in range(3)], 1)
        assert calls == [1]
        assert torch.equal(got, layer(x))


def test_a_bare_model_rounds_no_inputs(tiny_models):
    model, _ = tiny_models.tiny("llama")
    inputs = prompts(model, 1, 5, seed=0)
    tokens = generate(model, inputs, 3).tokens
    before = follow(model, inputs, tokens)
    for name in swap.prunable(model):
        model.get_submodule(name).register_forward_pre_hook(lambda module, given: (given[0].round(),))
    assert not torch.equal(follow(model, inputs, tokens), before)
    assert torch.equal(follow(swap.bare(model), inputs, tokens), before)


def test_the_output_layer_is_named(tiny_models):
    assert swap.head(tiny_models.tiny("whisper")[0]) == "proj_out"
    assert swap.head(tiny_models.tiny("llama")[0]) == "lm_head"
    assert swap.head(nn.Linear(2, 2)) is None


def test_a_model_that_generates_nothing_is_refused(tiny_models):
    with pytest.raises(Problem, match="generates nothing"):
        prompts(tiny_models.tiny("vit")[0], 1, 4, seed=0)
