from __future__ import annotations

from torch import nn

from harness.tuning.optimizer import adamw


def test_only_matrices_decay_and_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2, bias=False))
    model[2].weight.requires_grad_(False)
    optimizer = adamw(model, lr=1.0, weight_decay=0.1, beta2=0.95)
    assert [(g["weight_decay"], [tuple(p.shape) for p in g["params"]]) for g in optimizer.param_groups] == [
        (0.1, [(2, 3)]),
        (0.0, [(2,), (2,), (2,)]),
    ]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
