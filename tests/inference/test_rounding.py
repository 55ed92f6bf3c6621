"""What an engine that rounds is held to: the weights it says it has, and its activations rounded as it says."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from harness import rooms
from harness.inference import formats, rounding
from harness.inference.agreement import TOLERANCE, agreement, check, reference
from harness.inference.kernels.linear import LEVELS, PackedLinear
from harness.inference.prompts import prompts
from harness.inference.swap import head, prunable
from harness.problems import Problem

ROUND = (
    *("packed:precision=bf16", "packed:precision=fp16", "packed:precision=int8", "packed:precision=int8,head=int8"),
    "packed:precision=int8,activations=8",
    *("torch_int8", "torch_int8:head=int8", "torch_dense:dtype=bfloat16"),
    *("torchao_int8", "torchao_int8:activations=int8", "torchao_int8:head=int8"),
)


@pytest.fixture(scope="module", params=["llama", "t5"])
def given(request, tiny_models):
    model = tiny_models.tiny(request.param)[0]
    inputs = prompts(model, 2, 8, seed=0)
    return model, inputs, reference(model, inputs, 5)


def made(model, engine):
    if reason := rooms.bind("engine", engine, "available")():
        pytest.skip(reason)
    return rooms.bind("engine", engine)(copy.deepcopy(model)).eval()


@pytest.mark.parametrize("engine", ROUND)
def test_an_engine_is_within_its_bound_and_its_weights_rounding_is_told_apart(given, engine):
    model, inputs, dense = given
    lane = made(model, engine)
    found = rounding.verify(model, lane, inputs, dense)
    check(engine, found)
    assert 1e-5 < found["weight_error"] < 1 / 200
    if engine == "packed:precision=int8":
        assert found["own_error"] < agreement(lane, inputs, dense)["logit_error"] / 3
    as_they_are = ("packed:precision=bf16", "packed:precision=fp16", "torchao_int8")
    assert (found["bound"] == TOLERANCE) is (engine.startswith(as_they_are) and "activations" not in engine)


@pytest.mark.parametrize(
    "engine",
    ["packed:precision=int8", "torch_int8", "torch_dense:dtype=bfloat16", "torchao_int8:activations=int8"],
)
def test_one_wrong_layer_is_found_out(given, engine):
    model, inputs, dense = given
    lane = made(model, engine)
    wrong = lane.get_submodule(prunable(model)[-1])
    wrong.register_forward_hook(lambda module, x, out: -out)
    with pytest.raises(Problem, match="computes other logits than its weights"):
        check(engine, rounding.verify(model, lane, inputs, dense))


@pytest.mark.parametrize(
    ("engine", "values"),
    [
        ("packed:precision=int8,join=false", lambda layer: layer.scales),
        ("torch_dense:dtype=bfloat16", lambda layer: layer.weight.data),
        ("torchao_int8", lambda layer: layer.weight.scale),
    ],
)
def test_a_wrong_weight_is_named(given, engine, values):
    model, inputs, dense = given
    name, lane = prunable(model)[2], made(model, engine)
    values(lane.get_submodule(name))[1] *= 1.02
    with pytest.raises(Problem, match="off by more than half a step") as caught:
        rounding.verify(model, lane, inputs, dense)
    assert caught.value.where.startswith(name)


def test_fewer_bits_have_a_wider_bound():
    weight, x = torch.randn(8, 128), torch.randn(3, 128)
    layers = {bits: PackedLinear(formats.pack(weight, "bitmask", "int8")) for bits in LEVELS}
    for bits, layer in layers.items():
        layer.activations = bits
        step = x.abs().amax(-1, keepdim=True) / LEVELS[bits]
        off = (rounding.rounding(layer)(x) - x).abs()
        assert bool((off <= step / 2 * 1.001).all()) and bool((off.amax(-1) > step[:, 0] / 4).all())
    index = PackedLinear(formats.pack(weight, "index", "int8"))
    assert rounding.rounding(index) is None
    assert rounding.rounding(PackedLinear(formats.pack(weight, "bitmask", "bf16"))) is None
    assert rounding.rounding(nn.Linear(2, 2)) is None


def test_activations_of_a_call_have_128_levels_with_zero_among_them():
    x = torch.tensor([[0.0, 1.0, 2.0], [-0.5, 3.0, 0.1]])
    found = rounding.by_call(x)
    assert found[0, 0] == 0 and bool(((found - x).abs() <= 3.5 / 127 / 2 * 1.001).all())
    assert len(rounding.by_call(torch.linspace(-1, 2, 10_000)).unique()) == 128


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_half_a_step_of_16_bits_is_that_of_the_type(stored):
    weight = torch.cat([torch.randn(5000), torch.randn(5000) * 1e-6])
    off = (weight.to(stored).float() - weight).abs()
    assert bool((off <= rounding.half_step(weight, stored) * rounding.EDGE).all())
    assert bool((off > rounding.half_step(weight, stored) / 2).any())


def test_the_output_layer_is_untied_where_it_alone_is_rounded(tiny_models):
    model = tiny_models.tiny("llama")[0]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    plain = rounding.Dense(model, made(model, "packed:precision=int8,head=int8")).model
    assert torch.equal(plain.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert head(plain) == "lm_head" and not torch.equal(plain.lm_head.weight, model.lm_head.weight)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())


def test_a_runtime_in_16_bits_is_held_to_what_those_do_to_torch(given):
    model, inputs, dense = given
    bound = rounding.bound_of_16_bits(model, inputs, dense)
    assert agreement(made(model, "torch_dense:dtype=bfloat16"), inputs, dense)["logit_error"] <= bound < 0.6


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_the_weights_of_the_gpu_s_engine_are_read_back_too(tiny_models, precision):
    model = tiny_models.tiny("llama")[0]
    lane = rooms.bind("engine", f"triton_bitmask:precision={precision}")(copy.deepcopy(model))
    plain = rounding.Dense(model, lane)
    assert plain.type is torch.float16 and 1e-5 < plain.weight_error < 1 / 200
    lane.get_submodule(prunable(model)[0]).joined.layer.stored[:8] = 77
    with pytest.raises(Problem, match="off by more than half a step"):
        rounding.Dense(model, lane)
