from __future__ import annotations

import pytest
import torch

from harness.pruning.criteria import random


def test_layer_and_seed_alone_decide():
    zeros, ones = torch.zeros(6, 7), torch.ones(6, 7, dtype=torch.float16)
    first = random.score(zeros, "a.q_proj")
    torch.manual_seed(99)
    assert torch.equal(first, random.score(ones, "a.q_proj")) and first.dtype == torch.float32
    assert not torch.equal(first, random.score(zeros, "a.k_proj"))
    assert not torch.equal(first, random.score(zeros, "a.q_proj", seed=1))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    random.score(torch.zeros(2, 2), "a")
    assert torch.equal(before, torch.get_rng_state())


def test_the_numbers_are_pinned():
    # sha256("0:a")'s first 8 bytes seed the generator: a changed seeding would change every record
    scores = random.score(torch.zeros(1, 3), "a")
    generator = torch.Generator().manual_seed(0x9DF3C5FAB8EF8FE7)
    assert torch.equal(scores, torch.rand(1, 3, generator=generator))


def test_scores_are_uniform():
    scores = random.score(torch.zeros(300, 300), "a")
    assert scores.min() >= 0 and scores.max() < 1
    counts = torch.histc(scores, 10, 0, 1) / scores.numel()
    assert (counts - 0.1).abs().max() < 0.01


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_draws_the_same():
    on_gpu = random.score(torch.zeros(64, 64, device="cuda"), "a")
    assert on_gpu.is_cuda and torch.equal(on_gpu.cpu(), random.score(torch.zeros(64, 64), "a"))
