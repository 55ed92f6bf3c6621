from __future__ import annotations

import torch

from harness.bench.cost import count


def test_products_are_counted_forwards_backwards_and_in_place():
    x, weight = torch.randn(5, 3), torch.randn(3, 7, requires_grad=True)
    assert count(lambda: (x @ weight).sum().backward(), [x, weight]).flops == 2 * 2 * 5 * 3 * 7
    assert count(lambda: torch.zeros(5, 7).addmm_(x, weight.detach()), [x, weight]).flops == 2 * 5 * 3 * 7
    assert count(lambda: torch.mm(x, weight.detach(), out=torch.zeros(5, 7)), [x]).flops == 2 * 5 * 3 * 7


def test_what_is_kept_is_counted_once_and_without_what_was_there():
    weight = torch.randn(4, 4, requires_grad=True)

    def work():
        y = weight.exp()
        (y.sin() + y.cos()).sum().backward()

    cost = count(work, [weight])
    assert cost.saved_bytes == 64 and cost.held_bytes == 64


def test_the_peak_is_of_what_lives_at_once():
    def work():
        for _ in range(3):
            a = torch.zeros(100)
            b = a + 1
            del a
            c = b[:10] * 2
            del b, c

    cost = count(work, [torch.zeros(7)])
    assert (cost.held_bytes, cost.peak_bytes) == (28, 28 + 800)
    assert count(work, [torch.zeros(7)]) == cost


def test_views_and_changes_of_what_was_there_cost_nothing():
    held = torch.zeros(100)
    assert count(lambda: held.view(10, 10).t().add_(1), [held]).peak_bytes == 400
