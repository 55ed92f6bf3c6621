from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.problems import Problem
from harness.quantization.activations import Dynamic, Static, attach


def test_a_token_is_rounded_by_its_own_largest_value():
    x = torch.tensor([[1.0, -0.5, 0.003, 0.0], [1000.0, -4.0, 3.0, 500.0], [0.0, 0.0, 0.0, 0.0]])
    rounded = Dynamic()(x)
    for row, found in zip(x.tolist(), rounded.tolist(), strict=True):
        step = max(map(abs, row)) / 127
        expected = [step * round(value / step) if step else 0.0 for value in row]
        assert found == pytest.approx(expected, rel=1e-6)
    assert rounded[0, 2] == rounded[1, 2] == 0 and rounded[1, 1] < -7, "4 of 1000 is half a step"
    assert torch.equal(Dynamic()(x[1:2]), rounded[1:2]), "a token depends on those beside it"
    torch.testing.assert_close(Dynamic()(rounded), rounded)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 5.0), (-2.0, -1.0), (0.5, 4.0), (0.0, 0.0)])
def test_a_static_grid_covers_its_range_and_holds_zero(low, high):
    grid = Static.over(low, high)
    assert -128 <= grid.zero <= 127
    x = torch.linspace(min(low, 0), max(high, 0), 300)
    assert ((grid(x) - x).abs() <= 1.01 * grid.scale).all() and len(grid(x).unique()) <= 256
    assert grid(torch.zeros(1)) == 0
    far = grid(torch.tensor([-100.0, 100.0]))
    assert far[0] >= min(low, 0) - 1.01 * grid.scale and (far[1] <= max(high, 0) + 1.01 * grid.scale or low == high)


@pytest.mark.parametrize("rounded", [Dynamic(), Static.over(-3, 3)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_inputs_stay(rounded, dtype):
    x = torch.randn(2, 3, 8).to(dtype)
    before = x.clone()
    found = rounded(x)
    assert found.dtype == dtype and found.shape == x.shape and torch.equal(x, before)


def test_the_product_is_that_of_integers():
    generator = torch.Generator().manual_seed(0)
    x, codes = torch.randn(16, 32, generator=generator), torch.randint(-128, 128, (8, 32), generator=generator)
    step = x.abs().amax(1, keepdim=True) / 127
    whole = (x / step).round().to(torch.int64) @ codes.T
    torch.testing.assert_close(Dynamic()(x) @ codes.T.float(), whole * step, rtol=1e-5, atol=1e-3)


def test_attached_it_rounds_what_the_layer_reads_and_nothing_else():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    x = torch.randn(5, 8)
    with torch.no_grad():
        plain = model(x)
        hooks = attach(model, {"2": Dynamic()})
        inner = model[1](model[0](x))
        torch.testing.assert_close(model(x), nn.functional.linear(Dynamic()(inner), model[2].weight, model[2].bias))
        assert not torch.equal(model(x), plain)
        hooks[0].remove()
        assert torch.equal(model(x), plain)


@pytest.mark.parametrize("name", ["1", "7"])
def test_a_name_that_is_no_linear_is_a_problem(name):
    with pytest.raises(Problem, match="no such linear layer"):
        attach(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {name: Dynamic()})
