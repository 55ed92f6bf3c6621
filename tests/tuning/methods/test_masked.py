from __future__ import annotations

import pytest
import torch

from harness.tuning.methods import masked

KEEP = torch.tensor([[True, False], [False, True]])


def test_it_trains_the_weight_with_zeros_where_it_was_pruned():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    trained = masked.prepare(weight, KEEP)
    assert {k: v.tolist() for k, v in trained.items()} == {"weight": [[1, 0], [0, 4]]}
    assert weight[0, 1] == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_projection_is_in_place_and_exact(dtype):
    tensor = torch.tensor([[1.0, 1e30], [-3.0, -2.0]], dtype=dtype)
    masked.project({"weight": tensor}, KEEP)
    assert tensor.tolist() == [[1, 0], [0, -2]] and tensor.dtype == dtype


def test_projection_hides_nothing_that_is_not_finite():
    tensor = torch.tensor([[1.0, float("inf")], [0.0, 1.0]])
    masked.project({"weight": tensor}, KEEP)
    assert tensor[0, 1].isnan()


def test_merged_is_what_was_trained():
    trained = masked.prepare(torch.randn(2, 2), KEEP)
    assert masked.merge(torch.zeros(2, 2), KEEP, trained) is trained["weight"]
