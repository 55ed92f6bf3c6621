from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch

from harness.tuning import aged
from harness.tuning.aged import AgedAdamW

SETTINGS = {"lr": 0.03, "betas": (0.9, 0.97), "eps": 1e-6, "weight_decay": 0.1}


def plain(value, m, v, age, gradient, lr, betas, eps, weight_decay):
    """One number's update in Python floats: the value and its moments."""
    b1, b2 = betas
    m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
    step = lr * math.sqrt(1 - b2**age) / (1 - b1**age) * m / (math.sqrt(v) + eps)
    return (value - step) * (1 - lr * weight_decay), m, v


def run(p, gradients, optimizer):
    for gradient in gradients:
        p.grad = gradient.clone()
        optimizer.step()


def test_every_number_is_corrected_by_its_own_age(monkeypatch):
    monkeypatch.setattr(aged, "_PIECE", 3)
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(2, 4, dtype=torch.float64))
    optimizer = AgedAdamW([p], **SETTINGS)
    gradients = torch.randn(9, 2, 4, dtype=torch.float64)
    expected = [[value, 0.0, 0.0, 1] for value in p.flatten().tolist()]
    for t, gradient in enumerate(gradients):
        run(p, [gradient], optimizer)
        for number, g in zip(expected, gradient.flatten().tolist(), strict=True):
            number[:3] = plain(*number, g, **SETTINGS)
            number[3] += 1
        if t == 4:
            state = optimizer.state[p]
            for name, start in (("age", 1), ("exp_avg", 0), ("exp_avg_sq", 0)):
                state[name].view(-1)[5] = start
            expected[5][1:] = 0.0, 0.0, 1
    assert p.flatten().tolist() == pytest.approx([number[0] for number in expected], rel=1e-6)
    assert optimizer.state[p]["age"].flatten().tolist() == [number[3] for number in expected]


@pytest.mark.parametrize("beta1", [0.9, 0.0])
def test_of_one_age_and_with_no_eps_and_no_decay_it_is_the_adamw_of_torch(beta1):
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(70000))
    q = deepcopy(p)
    gradients = torch.randn(5, 70000)
    settings = {"lr": 0.01, "betas": (beta1, 0.999), "eps": 0.0, "weight_decay": 0.0}
    run(p, gradients, AgedAdamW([p], **settings))
    run(q, gradients, torch.optim.AdamW([q], **settings))
    torch.testing.assert_close(p, q, rtol=0, atol=2e-6)


def test_it_goes_on_from_its_state_to_the_same_bits():
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(50))
    gradients = torch.randn(6, 50)
    optimizer = AgedAdamW([p], **SETTINGS)
    run(p, gradients[:3], optimizer)
    optimizer.state[p]["age"][7] = 1
    q = deepcopy(p)
    resumed = AgedAdamW([q], **SETTINGS)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    run(p, gradients[3:], optimizer)
    run(q, gradients[3:], resumed)
    assert torch.equal(p, q) and resumed.state[q]["betas"] == SETTINGS["betas"]
    assert resumed.state[q]["age"].dtype == torch.float32


def test_parameters_without_a_gradient_stay_and_a_closure_is_asked():
    p, still = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = AgedAdamW([p, still], **SETTINGS)

    def closure():
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 3
    assert torch.equal(still, torch.ones(3)) and not torch.equal(p, still) and not optimizer.state[still]
