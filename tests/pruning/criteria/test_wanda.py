from __future__ import annotations

import torch

from harness.pruning.criteria import magnitude, wanda
from harness.pruning.patterns import unstructured
from harness.pruning.statistics import InputNorm


def norm_of(x):
    norm = InputNorm(x.shape[1], x.device)
    norm.add(x, torch.tensor([len(x)]))
    return norm.value


def test_by_hand():
    # inputs (3, 0, 1) and (4, 0, 1): mean squares 12.5, 0, 1
    norm = norm_of(torch.tensor([[3.0, 0.0, 1.0], [4.0, 0.0, 1.0]]))
    scores = wanda.score(torch.tensor([[-2.0, 9.0, 1.0], [0.5, 1.0, -4.0]]), norm)
    root = 12.5**0.5
    torch.testing.assert_close(scores, torch.tensor([[2 * root, 0.0, 1.0], [0.5 * root, 0.0, 4.0]]))


def test_agrees_with_the_slow_version(correlated, reference):
    weight, x = correlated(5, 12)
    torch.testing.assert_close(wanda.score(weight, norm_of(x)), reference.wanda(weight, x))


def test_with_constant_norms_it_is_rowwise_magnitude(correlated):
    weight, _ = correlated(8, 20)
    by_norm = unstructured.choose(wanda.score(weight, torch.full((20,), 2.0)), 0.6, group="row")
    assert torch.equal(by_norm, unstructured.choose(magnitude.score(weight), 0.6, group="row"))
