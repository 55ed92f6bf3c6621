from __future__ import annotations

import pytest
import torch
from torch.nn.functional import dropout
from torch.utils.checkpoint import checkpoint

from harness.problems import Problem
from harness.tuning.methods import spp


@pytest.fixture
def parts(slow):
    """A function to x, W, M, {P, q} of which nothing is 0, and the gradient of y."""

    def make(dtype=torch.float64, **shape):
        x, weight, keep, _, gradient = slow("low_rank").parts(dtype, **shape)
        draw = torch.Generator().manual_seed(9)
        p, q = (torch.randn(*s, generator=draw).to(dtype).requires_grad_() for s in ((16, 40), (48, 1)))
        return x, weight, keep, {"spp_P": p, "spp_q": q}, gradient

    return make


def test_training_begins_at_the_pruned_model(parts):
    x, weight, keep, _, _ = parts(torch.float32)
    torch.manual_seed(0)
    trained = spp.prepare(weight, keep)
    torch.testing.assert_close(spp.adapt(x, weight, keep, trained, True), x @ weight.T)
    assert trained["spp_P"].shape == (16, 40) and trained["spp_P"].all() and trained["spp_P"].abs().max() <= 40**-0.5
    assert trained["spp_q"].shape == (48, 1) and not trained["spp_q"].any()


@pytest.mark.parametrize("lead", [(3, 5), (7,), ()])
def test_outputs_and_gradients_are_those_of_the_definition(slow, parts, lead):
    plain = slow("low_rank")
    x, weight, keep, trained, gradient = parts(lead=lead)
    inputs = (x, *trained.values())
    ours = plain.gradients(spp.adapt(x, weight, keep, trained, True, rank=8.0, alpha=20.0), gradient, *inputs)
    theirs = plain.gradients(plain.spp(x, weight, *trained.values(), 2.5), gradient, *inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_dropout_is_on_the_added_product_alone(slow, parts):
    plain = slow("low_rank")
    x, weight, keep, trained, gradient = parts()
    inputs = (x, *trained.values())
    torch.manual_seed(3)
    ours = plain.gradients(spp.adapt(x, weight, keep, trained, True, dropout=0.5), gradient, *inputs)
    torch.manual_seed(3)
    inner = dropout(x, 0.5)
    y = (x - inner) @ weight.T + plain.spp(inner, weight, *trained.values(), 2.0)
    torch.testing.assert_close(ours, plain.gradients(y, gradient, *inputs), rtol=1e-10, atol=1e-10)


def test_merged_it_computes_the_same_and_its_zeros_stay(parts):
    x, weight, keep, trained, _ = parts()
    merged = spp.merge(weight, keep, trained)
    torch.testing.assert_close(x @ merged.T, spp.adapt(x, weight, keep, trained, True))
    assert torch.equal(merged != 0, keep)
    assert not spp.merge(torch.ones_like(weight), keep, trained)[~keep].any()


def test_it_keeps_nothing_of_the_size_of_the_weight(parts):
    x, weight, keep, trained, _ = parts()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        spp.adapt(x, weight, keep, trained, True)
    assert {t.data_ptr() for t in saved} == {t.data_ptr() for t in (x, weight, *trained.values())}


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_and_checkpointing(parts, autocast):
    x, weight, keep, trained, gradient = parts(torch.float32)
    kind = torch.float32 if autocast else torch.bfloat16
    given = x.detach().to(kind).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = checkpoint(lambda t: spp.adapt(t, weight.to(kind), keep, trained, True), given, use_reentrant=False)
    assert y.dtype == torch.bfloat16
    y.backward(gradient.bfloat16())
    exact = torch.autograd.grad(spp.adapt(x, weight, keep, trained, True), (x, *trained.values()), gradient)
    for ours, theirs in zip((given, *trained.values()), exact, strict=True):
        assert torch.nn.functional.cosine_similarity(ours.grad.float().flatten(), theirs.flatten(), dim=0) > 0.999
    assert given.grad.dtype == kind and trained["spp_q"].grad.dtype == torch.float32


def test_a_frozen_first_input_needs_no_gradient(parts):
    x, weight, keep, trained, gradient = parts()
    spp.adapt(x.detach(), weight, keep, trained, True).backward(gradient)
    assert trained["spp_P"].grad.any()


def test_a_weight_that_asks_for_a_gradient_is_refused(parts):
    x, weight, keep, trained, gradient = parts()
    with pytest.raises(RuntimeError, match="frozen"):
        spp.adapt(x, weight.requires_grad_(), keep, trained, True).backward(gradient)


def test_a_gradient_of_the_gradient_is_refused(parts):
    x, weight, keep, trained, gradient = parts()
    y = spp.adapt(x, weight, keep, trained, True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(y, x, gradient, create_graph=True)


def test_blocks_must_be_equal():
    with pytest.raises(Problem, match=r"40 outputs are no 16 equal blocks") as caught:
        spp.prepare(torch.zeros(40, 8), torch.ones(40, 8, dtype=torch.bool))
    assert "10 would do" in str(caught.value)
