from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from harness import rooms
from harness.problems import Problem
from harness.tuning import attach
from harness.tuning.bits import Bits
from harness.tuning.methods import _masked_product, lors


def test_training_begins_at_the_pruned_model_with_the_main_directions_of_the_gradient(slow):
    x, weight, keep, _, _ = slow("low_rank").parts(torch.float32)
    gradient = torch.randn(48, 4) @ torch.randn(4, 40) + 1e-3 * torch.randn(48, 40)
    trained = lors.prepare(weight, keep, gradient, rank=4, gamma=2.0)
    torch.testing.assert_close(lors.adapt(x, weight, Bits.of(keep), trained), x @ weight.T)
    right = torch.linalg.svd(gradient)[2][:4]
    a = 2 * trained["lora_A"]
    torch.testing.assert_close((right * a).sum(1).abs(), torch.ones(4), rtol=1e-3, atol=1e-3)
    assert not trained["lora_B"].any()


def test_the_start_is_the_same_under_a_seed():
    weight, keep, gradient = torch.randn(30, 50), torch.ones(30, 50, dtype=torch.bool), torch.randn(30, 50)

    def start(seed):
        torch.manual_seed(seed)
        return lors.prepare(weight, keep, gradient, rank=3)["lora_A"]

    assert torch.equal(start(1), start(1)) and not torch.equal(start(1), start(2))


def test_a_random_start_needs_no_direction():
    trained = lors.prepare(torch.zeros(6, 8), torch.ones(6, 8, dtype=torch.bool), None, rank=2, init="kaiming")
    assert trained["lora_A"].all() and not trained["lora_B"].any()


@pytest.mark.parametrize(("rank", "what"), [(7, "has no rank 7"), (2, "is 0")])
def test_a_gradient_without_directions_is_a_problem(rank, what):
    with pytest.raises(Problem, match=what):
        lors.prepare(torch.zeros(6, 8), torch.ones(6, 8, dtype=torch.bool), torch.zeros(6, 8), rank=rank)


@pytest.mark.parametrize("band", [2**19, 100])
@pytest.mark.parametrize("lead", [(3, 5), (7,), ()])
def test_with_mask_and_scale_the_gradients_are_those_of_the_definition(slow, band, lead, monkeypatch):
    monkeypatch.setattr(_masked_product, "CPU_BAND", band)
    plain = slow("low_rank")
    x, weight, keep, trained, gradient = plain.parts(lead=lead)
    inputs = (x, *trained.values())
    y = lors.adapt(x, weight, Bits.of(keep), trained, alpha=6.0, masked_gradient=True, scaled_gradient=True)
    theirs = plain.gradients(plain.masked(x, weight, keep, *trained.values(), 6 / 2), gradient, *inputs)
    torch.testing.assert_close(plain.gradients(y, gradient, *inputs), theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scaled", [False, True])
def test_by_default_the_factors_have_the_gradients_of_the_release(slow, scaled):
    plain = slow("low_rank")
    x, weight, keep, trained, gradient = plain.parts()
    inputs = (x, *trained.values())
    y = lors.adapt(x, weight, Bits.of(keep), trained, alpha=6.0, scaled_gradient=scaled)
    y, dx, da, db = plain.gradients(y, gradient, *inputs)
    exact = plain.gradients(plain.masked(x, weight, keep, *trained.values(), 6 / 2), gradient, *inputs)
    torch.testing.assert_close((y, dx), exact[:2], rtol=1e-10, atol=1e-10)
    released = plain.released_lors(x, weight, keep, *trained.values(), gradient)
    torch.testing.assert_close((da, db), tuple((3 if scaled else 1) * g for g in released), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(da, exact[2], rtol=0.1) and not torch.allclose(db, exact[3], rtol=0.1)


def test_where_nothing_is_pruned_the_scaled_gradient_is_exact(slow):
    plain = slow("low_rank")
    x, weight, keep, trained, gradient = plain.parts()
    inputs, dense = (x, *trained.values()), torch.ones_like(keep)
    y = lors.adapt(x, weight, Bits.of(dense), trained, alpha=6.0, scaled_gradient=True)
    exact = plain.gradients(plain.masked(x, weight, dense, *trained.values(), 6 / 2), gradient, *inputs)
    torch.testing.assert_close(plain.gradients(y, gradient, *inputs), exact, rtol=1e-10, atol=1e-10)


def test_merged_it_computes_the_same_and_its_zeros_stay(slow):
    x, weight, keep, trained, _ = slow("low_rank").parts()
    merged = lors.merge(weight, keep, trained, alpha=6.0)
    torch.testing.assert_close(x @ merged.T, lors.adapt(x, weight, Bits.of(keep), trained, alpha=6.0))
    assert torch.equal(merged != 0, keep)
    assert not lors.merge(torch.ones_like(weight), keep, trained)[~keep].any()


@pytest.mark.parametrize("exact", [False, True])
def test_it_keeps_its_inputs_and_nothing_else(slow, exact):
    x, weight, keep, trained, _ = slow("low_rank").parts()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        lors.adapt(x, weight, Bits.of(keep), trained, masked_gradient=exact)
    assert {t.data_ptr() for t in saved} == {t.data_ptr() for t in (x, weight, *trained.values())}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_and_checkpointing(slow, autocast, exact):
    x, weight, keep, trained, gradient = slow("low_rank").parts(torch.float32)
    kind = torch.float32 if autocast else torch.bfloat16

    def run(t, w):
        return lors.adapt(t, w, Bits.of(keep), trained, masked_gradient=exact)

    given = x.detach().to(kind).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = checkpoint(run, given, weight.to(kind), use_reentrant=False)
    assert y.dtype == torch.bfloat16
    y.backward(gradient.bfloat16())
    full = torch.autograd.grad(run(x, weight), (x, *trained.values()), gradient)
    for ours, theirs in zip((given, *trained.values()), full, strict=True):
        assert nn.functional.cosine_similarity(ours.grad.float().flatten(), theirs.flatten(), dim=0) > 0.999
    assert given.grad.dtype == kind and trained["lora_A"].grad.dtype == torch.float32


def test_backward_runs_outside_of_autocast_or_inside(slow):
    x, weight, keep, trained, gradient = slow("low_rank").parts(torch.float32)

    def gradients(inside):
        y = lors.adapt(x, weight, Bits.of(keep), trained)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            return torch.autograd.grad(y, (x, *trained.values()), gradient)

    assert all(torch.equal(a, b) for a, b in zip(gradients(False), gradients(True), strict=True))


def test_a_gradient_of_the_gradient_is_refused(slow):
    x, weight, keep, trained, gradient = slow("low_rank").parts()
    y = lors.adapt(x, weight, Bits.of(keep), trained)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(y, x, gradient, create_graph=True)


def test_a_frozen_first_input_needs_no_gradient(slow):
    x, weight, keep, trained, gradient = slow("low_rank").parts()
    lors.adapt(x.detach(), weight, Bits.of(keep), trained).backward(gradient)
    assert trained["lora_A"].grad.any()


def test_a_weight_that_asks_for_a_gradient_is_refused(slow):
    x, weight, keep, trained, gradient = slow("low_rank").parts()
    with pytest.raises(RuntimeError, match="frozen"):
        lors.adapt(x, weight.requires_grad_(), Bits.of(keep), trained).backward(gradient)


def test_attached_it_asks_for_gradients_and_merges_into_the_zeros():
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 6))
    keep = torch.rand(6, 8) < 0.5
    model[0].weight.data.mul_(keep)
    assert "gradient" in rooms.ROOMS["method"].method("lors").needs
    attached = attach.attach(model, {"0": keep}, "lors:rank=2", {"0": torch.randn(6, 8)})
    nn.init.normal_(attached.layers["0"].trained["lora_B"])
    x = torch.randn(2, 3, 8)
    before = model(x)
    attach.merge(attached)
    torch.testing.assert_close(model(x), before)
    assert not model[0].weight[~keep].any() and model[0].weight[keep].all()
