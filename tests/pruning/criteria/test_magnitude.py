from __future__ import annotations

import torch

from harness.pruning.criteria import magnitude


def test_by_hand():
    weight = torch.tensor([[-3.0, 1.0], [0.0, -0.5]])
    assert magnitude.score(weight).tolist() == [[3.0, 1.0], [0.0, 0.5]]
    assert weight.tolist() == [[-3.0, 1.0], [0.0, -0.5]]


def test_half_precision_is_scored_in_float32():
    scores = magnitude.score(torch.tensor([[-1.5]], dtype=torch.float16))
    assert scores.dtype == torch.float32 and scores.item() == 1.5
