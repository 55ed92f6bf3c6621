from __future__ import annotations

import pytest
import torch

from harness.problems import Problem
from harness.pruning.patterns import block, mixed_nm, nm, unstructured
from harness.rooms import resolve


@pytest.mark.parametrize("text", ["nm:n=0", "nm:m=-4", "0:4", "mixed_nm:m=0", "block:rows=0", "block:columns=-1"])
def test_counts_begin_at_one(text):
    with pytest.raises(Problem, match="should be at least 1"):
        resolve("pattern", text)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    "choose",
    [
        lambda scores: unstructured.choose(scores, 0.6, group="row"),
        lambda scores: unstructured.choose(scores, 0.6, group="matrix"),
        lambda scores: unstructured.choose(scores, 0.6, group="matrix", as_released=True),
        lambda scores: nm.choose(scores, 0.5),
        lambda scores: mixed_nm.choose(scores, 0.625),
        lambda scores: block.choose(scores, 0.6),
    ],
)
def test_the_gpu_chooses_the_same(choose):
    scores = torch.randint(50, (64, 96), generator=torch.Generator().manual_seed(0)).float()
    keep = choose(scores.cuda())
    assert keep.is_cuda and torch.equal(keep.cpu(), choose(scores))
