from __future__ import annotations

import torch

from harness.pruning.criteria import gblm, wanda


def test_by_hand():
    scores = gblm.score(torch.tensor([[-2.0, 1.0]]), torch.tensor([3.0, 4.0]), torch.tensor([[0.5, 1.0]]), alpha=2.0)
    assert scores.tolist() == [[8.0, 6.0]]


def test_agrees_with_the_papers_sums(plain, correlated):
    sequences, tokens = 3, 8
    weight, x = correlated(4, 6, tokens=sequences * tokens)
    gradients = torch.randn(sequences, 4, 6, generator=torch.Generator().manual_seed(0))
    norm, gradient_norm = x.square().mean(0).sqrt(), gradients.square().mean(0).sqrt()
    ours = gblm.score(weight, norm, gradient_norm, alpha=100 * (sequences / tokens) ** 0.5)
    torch.testing.assert_close(ours, plain.gblm(weight, x.view(sequences, tokens, 6), gradients, 100))


def test_without_the_gradient_it_is_wanda(correlated):
    weight, _ = correlated(4, 6)
    norm = torch.rand(6)
    assert torch.equal(gblm.score(weight, norm, torch.rand(4, 6), alpha=0.0), wanda.score(weight, norm))


def test_the_default_is_the_papers_100_at_its_128_sequences_of_2048_tokens(correlated):
    weight, _ = correlated(4, 6)
    norm, gradient_norm = torch.rand(6), torch.rand(4, 6)
    papers = gblm.score(weight, norm, gradient_norm, alpha=100 * (128 / 2048) ** 0.5)
    assert torch.equal(gblm.score(weight, norm, gradient_norm), papers)
