from __future__ import annotations

import pytest
import torch

from harness.pruning.statistics import STATISTICS, Gram, InputNorm

CPU = torch.device("cpu")


def fed(kind, *parts, columns=5):
    statistic = kind(columns, CPU)
    for part in parts:
        statistic.add(part)
    return statistic


def test_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    torch.testing.assert_close(fed(InputNorm, x, columns=2).value, torch.tensor([5.0, 2.0]).sqrt())
    torch.testing.assert_close(fed(Gram, x, columns=2).value, torch.tensor([[5.0, 1.0], [1.0, 2.0]]))


@pytest.mark.parametrize("kind", STATISTICS.values())
def test_splitting_and_merging_change_nothing(kind):
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    whole, parts = fed(kind, x), fed(kind, x[:7], x[7:8], x[8:8], x[8:])
    left, right, empty = fed(kind, x[:20]), fed(kind, x[20:]), kind(5, CPU)
    left.merge(right)
    left.merge(empty)
    empty.merge(whole)
    for each in (parts, left, empty):
        assert each.tokens == 30
        torch.testing.assert_close(each.value, whole.value)


@pytest.mark.parametrize("kind", STATISTICS.values())
def test_sums_are_float32_whatever_comes_in(kind):
    x = torch.full((4096, 5), 16.0, dtype=torch.float16)  # squares sum to 2^20, beyond float16
    assert fed(kind, x).value.dtype == torch.float32 and fed(kind, x).value.isfinite().all()
