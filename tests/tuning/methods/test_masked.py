from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from harness.tuning.bits import Bits
from harness.tuning.methods import masked

KEEP = torch.tensor([[True, False], [False, True]])


def test_it_trains_the_weight_with_zeros_where_it_was_pruned():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    trained = masked.prepare(weight, KEEP)
    assert {k: v.tolist() for k, v in trained.items()} == {"weight": [[1, 0], [0, 4]]}
    assert weight[0, 1] == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_projection_is_in_place_and_exact(dtype):
    tensor = torch.tensor([[1.0, 1e30], [-3.0, -2.0]], dtype=dtype)
    masked.project({"weight": tensor}, Bits.of(KEEP))
    assert tensor.tolist() == [[1, 0], [0, -2]] and tensor.dtype == dtype


def test_projection_hides_nothing_that_is_not_finite():
    tensor = torch.tensor([[1.0, float("inf")], [0.0, 1.0]])
    masked.project({"weight": tensor}, Bits.of(KEEP))
    assert tensor[0, 1].isnan()


def test_merged_is_what_was_trained():
    trained = masked.prepare(torch.randn(2, 2), KEEP)
    assert masked.merge(torch.zeros(2, 2), KEEP, trained) is trained["weight"]


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (0, 5)])
def test_its_forward_is_linear_and_its_gradient_masked(shape):
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand(4, 5, generator=generator) < 0.5
    found = []
    for forward in (lambda x, w: masked.adapt(x, w, Bits.of(keep), {"weight": w}), linear):
        generator.manual_seed(1)
        weight = (torch.randn(4, 5, generator=generator, dtype=torch.float64) * keep).requires_grad_()
        x = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        y = forward(x, weight)
        (y * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum().backward()
        found.append((y, x.grad, weight.grad))
    (y, at_x, at_weight), (expected, *gradients) = found
    torch.testing.assert_close((y, at_x, at_weight), (expected, gradients[0], gradients[1] * keep))
    assert not at_weight[~keep].any()


def test_a_large_gradient_is_masked_to_its_last_row():
    keep = torch.rand(1500, 800) < 0.5
    weight = torch.zeros(1500, 800, requires_grad=True)
    masked.adapt(torch.ones(2, 800), weight, Bits.of(keep), {}).sum().backward()
    assert torch.equal(weight.grad, 2.0 * keep)


def test_under_autocast_it_computes_as_linear_does():
    x, weight = torch.randn(3, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    keep = torch.rand(4, 5) < 0.5
    with torch.autocast("cpu", torch.bfloat16):
        one, other = masked.adapt(x, weight, Bits.of(keep), {}), linear(x, weight)
    assert one.dtype == torch.bfloat16 and torch.equal(one, other)
    gradients = [torch.autograd.grad(y.float().sum(), (x, weight)) for y in (one, other)]
    assert [g.dtype for g in gradients[0]] == [torch.float32] * 2
    torch.testing.assert_close(gradients[0], (gradients[1][0], gradients[1][1] * keep))


@pytest.mark.parametrize("given", [{"fused": True}, {"foreach": True}, {"foreach": False}], ids=str)
def test_an_update_leaves_a_zero_weight_with_a_zero_gradient_exactly_zero(given):
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand(40, 50, generator=generator) < 0.5
    weight = torch.nn.Parameter(torch.randn(40, 50, generator=generator) * keep)
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.7, **given)
    for step in range(20):
        optimizer.zero_grad()
        x = torch.randn(7, 50, generator=generator)
        masked.adapt(x, weight, Bits.of(keep), {}).square().sum().backward()
        torch.nn.utils.clip_grad_norm_([weight], 0.5)
        optimizer.step()
        state = optimizer.state[weight]
        assert not any(tensor[~keep].any() for tensor in (weight, state["exp_avg"], state["exp_avg_sq"])), step
    assert weight[keep].all()
