from __future__ import annotations

import pytest
import torch

from harness.pruning import statistics
from harness.pruning.statistics import STATISTICS, Gram, InputNorm, Length, Total, Variance, finite

CPU = torch.device("cpu")


def fed(kind, *batches, columns=5):
    """A statistic of `batches`, each a list of sequences [tokens, columns]."""
    statistic = kind(columns, CPU)
    for sequences in batches:
        lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
        statistic.add(torch.cat(sequences) if sequences else torch.zeros(0, columns), lengths)
    return statistic


def sequences(*lengths, columns=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(length, columns, generator=generator) + 3 for length in lengths]


def test_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    torch.testing.assert_close(fed(InputNorm, [x], columns=2).value, torch.tensor([5.0, 2.0]).sqrt())
    torch.testing.assert_close(fed(Gram, [x], columns=2).value, torch.tensor([[5.0, 1.0], [1.0, 2.0]]))
    torch.testing.assert_close(fed(Total, [x], columns=2).value, torch.tensor([4.0, 2.0]))
    torch.testing.assert_close(fed(Variance, [x], columns=2).value, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(fed(Length, [x, x[:1]], [x[:0], x], columns=2).value, torch.tensor(5 / 3))


def test_a_total_is_a_mean_over_sequences_however_long_they_are():
    long, short = torch.ones(10, 1), torch.full((2, 1), 7.0)
    assert fed(Total, [long, short], columns=1).value.item() == (10 + 14) / 2
    assert fed(Total, [long, short[:0]], columns=1).value.item() == 10, "no sequence without a token"


def test_a_variance_is_within_sequences_and_weighs_them_by_their_tokens():
    steady, shifted, moving = torch.full((4, 1), 5.0), torch.full((4, 1), -80.0), torch.tensor([[0.0], [2.0]])
    assert fed(Variance, [steady, shifted], columns=1).value.item() == 0
    assert fed(Variance, [steady, shifted, moving], columns=1).value.item() == pytest.approx(2 / 10)


def test_a_large_mean_costs_the_variance_no_digits():
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)) * 0.01 + 1000
    exact = x.double().var(dim=0, correction=0).float()
    torch.testing.assert_close(fed(Variance, [x], columns=3).value, exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", STATISTICS.values())
def test_batches_and_merging_change_nothing(kind):
    parts = sequences(7, 1, 0, 12, 10)
    whole, batches = fed(kind, parts), fed(kind, parts[:1], parts[1:3], [], parts[3:])
    left, right, empty = fed(kind, parts[:4]), fed(kind, parts[4:]), kind(5, CPU)
    left.merge(right)
    left.merge(empty)
    empty.merge(whole)
    for each in (batches, left, empty):
        assert each.tokens == 30
        torch.testing.assert_close(each.value, whole.value)


@pytest.mark.parametrize("columns", [1, 3, 4, 7])
def test_moments_by_panels_are_symmetric_and_those_of_one_product(monkeypatch, columns):
    monkeypatch.setattr(statistics, "_PANEL", 3)
    parts = sequences(9, 4, columns=columns)
    value = fed(Gram, parts[:1], parts[1:], columns=columns).value
    x = torch.cat(parts)
    assert torch.equal(value, value.T)
    torch.testing.assert_close(value, x.T @ x / 13)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_value_is_not_finite_and_a_sum_too_large_is_no_bad_value(bad):
    assert finite(torch.full((4,), 3e38)) and finite(torch.zeros(0))
    assert not finite(torch.tensor([1.0, bad, 2.0]))
    assert not finite(torch.tensor([bad, -bad]))


@pytest.mark.parametrize("kind", STATISTICS.values())
def test_nothing_seen_is_zero(kind):
    assert (kind(5, CPU).value == 0).all()


@pytest.mark.parametrize("kind", STATISTICS.values())
def test_sums_are_float32_whatever_comes_in(kind):
    x = torch.full((8192, 5), 16.0, dtype=torch.float16)  # sums to 2^17, squares to 2^21: both beyond float16
    x[::2] = -240
    value = fed(kind, [x]).value
    assert value.dtype == torch.float32 and value.isfinite().all() and (value != 0).all()
