"""The codes of the released GPTQ and the released smoothing on inputs rebuilt here; the file says whose code."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from harness.quantization.grid import spread
from harness.quantization.rounding import gptq
from harness.quantization.smoothquant import fold, scales

GOLDEN = json.loads((Path(__file__).parent / "quantization.json").read_text(encoding="utf8"))


def inputs_of(rows, columns, seed):
    """Weights [rows, columns] and 600 tokens of correlated inputs."""
    rng = np.random.default_rng(seed)
    weight = 0.05 * rng.standard_normal((rows, columns))
    x = rng.standard_normal((600, columns))
    x = x + 0.6 * np.roll(x, 1, axis=1) - 0.3 * np.roll(x, 7, axis=1) + 0.4 * rng.standard_normal((600, 1))
    x = x * rng.uniform(0.2, 3, columns)
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(x.astype(np.float32))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda c: "-".join(str(c[k]) for k in ("bits", "group", "order")))
def test_gptq_is_that_of_the_release_where_nothing_is_pruned(case):
    weight, x = inputs_of(case["rows"], case["columns"], case["seed"])
    grid = spread(weight, case["bits"], case["symmetric"], case["group"])
    keep = torch.ones_like(weight, dtype=torch.bool)
    codes = gptq.round(weight, keep, grid, x.T @ x / len(x), order=case["order"]).codes
    released = np.frombuffer(base64.b64decode(case["codes"]), dtype=np.int8).reshape(case["rows"], case["columns"])
    same = (codes.numpy() == released).mean()
    assert same > 0.99, "a value that lies between two codes may fall to the other side, and its row with it"
    assert float(grid.decode(codes).double().norm()) == pytest.approx(case["norm"], rel=1e-3 if same < 1 else 1e-6)


@pytest.mark.parametrize("case", GOLDEN["smooth"], ids=lambda c: f"{c['alpha']}-{c['bias']}")
def test_smoothing_is_that_of_the_release(case):
    (weight, x), (other, _) = inputs_of(6, 20, 100 + case["seed"]), inputs_of(9, 20, 200 + case["seed"])
    linears = [nn.Linear(20, 6), nn.Linear(20, 9)]
    norm = nn.LayerNorm(20) if case["bias"] else nn.RMSNorm(20)
    with torch.no_grad():
        linears[0].weight.copy_(weight)
        linears[1].weight.copy_(other)
        if case["bias"]:
            norm.bias.copy_(torch.arange(20.0) / 10)
    fold(norm, linears, scales(x.abs().amax(0), [weight, other], case["alpha"]))
    torch.testing.assert_close(norm.weight.detach(), torch.tensor(case["norm"]))
    if case["bias"]:
        torch.testing.assert_close(norm.bias.detach(), torch.tensor(case["norm_bias"]))
    torch.testing.assert_close(linears[0].weight[0].detach(), torch.tensor(case["first_row"]))
    torch.testing.assert_close(linears[1].weight[-1].detach(), torch.tensor(case["last_row"]))
