from __future__ import annotations

from torch import nn

from harness.tuning.aged import AgedAdamW
from harness.tuning.optimizer import adamw


def network():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2, bias=False))
    model[2].weight.requires_grad_(False)
    return model


def test_only_matrices_decay_and_frozen_parameters_are_left_out():
    optimizer = adamw(network(), lr=1.0, weight_decay=0.1, beta2=0.95)
    assert [(g["weight_decay"], [tuple(p.shape) for p in g["params"]]) for g in optimizer.param_groups] == [
        (0.1, [(2, 3)]),
        (0.0, [(2,), (2,), (2,)]),
    ]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95) and optimizer.param_groups[0]["eps"] == 1e-8


def test_aged_decays_all_that_is_trained():
    optimizer = adamw(network(), lr=1.0, weight_decay=0.1, beta1=0.8, aged=True)
    assert isinstance(optimizer, AgedAdamW)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 4
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.1, (0.8, 0.999), 1e-6)
    assert adamw(network(), lr=1.0, eps=1e-4, aged=True).param_groups[0]["eps"] == 1e-4
    assert adamw(network(), lr=1.0, eps=1e-4).param_groups[0]["eps"] == 1e-4
