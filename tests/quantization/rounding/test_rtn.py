from __future__ import annotations

import pytest
import torch

from harness.quantization.grid import spread
from harness.quantization.rounding import rtn


@pytest.mark.parametrize("symmetric", [True, False])
def test_every_kept_weight_takes_the_nearest_value(sparse, plain, symmetric):
    weight, keep, _ = sparse()
    keep[:, :3] = False  # pruned after the weights were written: they are not zero
    weight[:, :3] = 1
    grid = spread(weight, 4, symmetric)
    rounded = rtn.round(weight, keep, grid)
    values = grid.decode(rounded.codes)
    torch.testing.assert_close(values.double(), plain.rtn(weight, keep, 4, symmetric), rtol=1e-6, atol=1e-7)
    assert (values[~keep] == 0).all() and values.count_nonzero() > 0 and rounded.facts == {}


def test_what_lies_on_the_grid_stays(sparse):
    weight, keep, _ = sparse()
    grid = spread(weight, 8)
    once = grid.decode(rtn.round(weight, keep, grid).codes)
    assert torch.equal(grid.decode(rtn.round(once, keep, grid).codes), once)
