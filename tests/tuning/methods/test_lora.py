from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.problems import Problem
from harness.tuning import attach
from harness.tuning.methods import lora


def peft_layer(weight, trained, alpha=16.0, rslora=False, dropout=0.0):
    """peft's own LoRA layer with these tensors."""
    from peft import LoraConfig, get_peft_model

    model = nn.Sequential(nn.Linear(*reversed(weight.shape), bias=False)).to(weight.dtype)
    rank = len(trained["lora_A"])
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0"], use_rslora=rslora, lora_dropout=dropout)
    layer = get_peft_model(model, config).base_model.model[0]
    with torch.no_grad():
        layer.base_layer.weight.copy_(weight)
        layer.lora_A["default"].weight = nn.Parameter(trained["lora_A"].detach().clone())
        layer.lora_B["default"].weight = nn.Parameter(trained["lora_B"].detach().clone())
    return layer


def test_training_begins_at_the_pruned_model_with_the_numbers_of_peft(slow):
    x, weight, keep, _, _ = slow("low_rank").parts(torch.float32)
    torch.manual_seed(0)
    trained = lora.prepare(weight, keep, rank=4)
    assert torch.equal(lora.adapt(x, weight, keep, trained, True), x @ weight.T)
    torch.manual_seed(0)
    theirs = nn.init.kaiming_uniform_(torch.empty(4, 40), a=5**0.5)
    assert torch.equal(trained["lora_A"], theirs) and not trained["lora_B"].any()
    assert trained["lora_A"].abs().max() <= 40**-0.5


@pytest.mark.parametrize("rslora", [False, True])
def test_outputs_and_gradients_are_those_of_the_definition(slow, rslora):
    plain = slow("low_rank")
    x, weight, keep, trained, gradient = plain.parts()
    inputs = (x, *trained.values())
    scale = 6 / 2 if rslora else 6 / 4
    ours = plain.gradients(lora.adapt(x, weight, keep, trained, True, alpha=6.0, rslora=rslora), gradient, *inputs)
    theirs = plain.gradients(plain.lora(x, weight, keep, *trained.values(), scale), gradient, *inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rslora", [False, True])
def test_outputs_and_gradients_are_those_of_peft(slow, rslora):
    plain = slow("low_rank")
    x, weight, keep, trained, gradient = plain.parts(torch.float32)
    layer = peft_layer(weight, trained, 6.0, rslora)
    factors = (layer.lora_A["default"].weight, layer.lora_B["default"].weight)
    ours = plain.gradients(
        lora.adapt(x, weight, keep, trained, True, alpha=6.0, rslora=rslora), gradient, x, *trained.values()
    )
    theirs = plain.gradients(layer(x), gradient, x, *factors)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_dropout_is_that_of_peft_and_on_the_adapter_alone(slow):
    x, weight, keep, trained, _ = slow("low_rank").parts(torch.float32)
    layer = peft_layer(weight, trained, dropout=0.5)
    torch.manual_seed(3)
    theirs = layer.train()(x)
    torch.manual_seed(3)
    torch.testing.assert_close(lora.adapt(x, weight, keep, trained, True, dropout=0.5), theirs)
    torch.testing.assert_close(lora.adapt(x, weight, keep, trained, False, dropout=0.5), layer.eval()(x))
    assert not torch.equal(theirs, layer(x))


def test_attached_it_drops_in_training_alone():
    model = nn.Sequential(nn.Linear(8, 6))
    attached = attach.attach(model, {"0": torch.rand(6, 8) < 0.5}, "lora:rank=2,dropout=0.5")
    nn.init.ones_(attached.layers["0"].trained["lora_B"])
    x = torch.randn(64, 8)
    assert torch.equal(model.eval()(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


def test_merged_it_is_the_dense_sum(slow):
    x, weight, keep, trained, _ = slow("low_rank").parts()
    merged = lora.merge(weight, keep, trained, alpha=8.0)
    torch.testing.assert_close(x @ merged.T, lora.adapt(x, weight, keep, trained, True, alpha=8.0))
    assert merged[~keep].all()


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_has_factors_in_float32(slow, autocast):
    x, weight, keep, trained, gradient = slow("low_rank").parts(torch.float32)
    kind = torch.float32 if autocast else torch.bfloat16
    made = lora.prepare(weight.to(kind), keep, rank=4)
    assert all(tensor.dtype == torch.float32 for tensor in made.values())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = lora.adapt(x.to(kind), weight.to(kind), keep, trained, True)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), lora.adapt(x, weight, keep, trained, True), rtol=0.05, atol=0.2)
    y.backward(gradient.bfloat16())
    assert trained["lora_A"].grad.dtype == torch.float32 and trained["lora_B"].grad.any()


def test_attached_it_trains_the_two_factors_and_nothing_else():
    model = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6))
    keep = torch.rand(6, 8) < 0.5
    attached = attach.attach(model, {"0": keep}, "lora:rank=2")
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"0.lora_A", "0.lora_B"}
    model(torch.randn(3, 8)).square().sum().backward()
    before = {name: p.clone() for name, p in attached.layers["0"].trained.items()}
    attach.project(attached, {})
    assert all(torch.equal(p, before[name]) for name, p in attached.layers["0"].trained.items())
    assert attached.layers["0"].trained["lora_B"].grad.any()


@pytest.mark.parametrize("name", ["lora", "lora_star", "lors", "losa", "sparse_peft"])
def test_a_rank_beyond_the_narrower_side_is_a_problem(name):
    model = nn.Sequential(nn.Linear(8, 6))
    keeps = {"0": torch.ones(6, 8, dtype=torch.bool)}
    with pytest.raises(Problem, match="6 outputs and 8 inputs has no rank 7"):
        attach.attach(model, keeps, f"{name}:rank=7", {"0": torch.randn(6, 8)})
    attach.attach(model, keeps, f"{name}:rank=6", {"0": torch.randn(6, 8)})
