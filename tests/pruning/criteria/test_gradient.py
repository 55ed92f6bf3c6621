from __future__ import annotations

import torch

from harness.pruning.criteria import gradient


def test_by_hand():
    scores = gradient.score(torch.tensor([[-2.0, 3.0]]), torch.tensor([[0.5, -1.0]]))
    assert scores.tolist() == [[1.0, 3.0]]


def test_agrees_with_the_slow_version(plain, correlated):
    weight, gradients = correlated(6, 9)[0], correlated(6, 9, seed=1)[0]
    torch.testing.assert_close(gradient.score(weight, gradients), plain.gradient(weight, gradients))


def test_it_is_the_first_order_change_of_the_loss(correlated):
    weight, x = correlated(4, 6)
    weight = weight.double().requires_grad_()

    def loss(w):
        return (x.double() @ w.T).tanh().mean()

    loss(weight).backward()
    scores = gradient.score(weight.detach(), weight.grad.float())
    with torch.no_grad():
        smaller = weight.clone()
        smaller[2, 3] *= 1 - 1e-6
        change = abs(float(loss(smaller) - loss(weight))) / 1e-6
    assert abs(float(scores[2, 3]) / change - 1) < 1e-3
