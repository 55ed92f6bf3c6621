from __future__ import annotations

import torch

from harness import rooms
from harness.tuning.methods import lora, lora_star


def test_it_is_lora_whose_merged_weight_is_dense():
    torch.manual_seed(0)
    keep = torch.rand(12, 16) < 0.5
    weight, x = torch.randn(12, 16).masked_fill(~keep, 0), torch.randn(3, 16)
    trained = lora_star.prepare(weight, keep, rank=4)
    trained["lora_B"].normal_()
    options = {"alpha": 8.0, "rslora": True}
    ours, plain = (m.adapt(x, weight, keep, trained, False, **options) for m in (lora_star, lora))
    assert torch.equal(ours, plain)
    merged = lora_star.merge(weight, keep, trained, **options)
    torch.testing.assert_close(x @ merged.T, ours, rtol=1e-4, atol=1e-5)
    assert merged[~keep].all()


def test_it_has_loras_options():
    ours, theirs = (rooms.ROOMS["method"].method(name).options for name in ("lora_star", "lora"))
    assert ours == theirs
