from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.pruning.criteria import ria


def test_by_hand():
    # column sums 4, 4; row sums 3, 5
    weight, norm = torch.tensor([[-1.0, 2.0], [3.0, -2.0]]), torch.tensor([4.0, 9.0])
    expected = torch.tensor([[(1 / 4 + 1 / 3) * 2, (2 / 4 + 2 / 3) * 3], [(3 / 4 + 3 / 5) * 2, (2 / 4 + 2 / 5) * 3]])
    torch.testing.assert_close(ria.score(weight, norm), expected)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 1.0]))
def test_agrees_with_the_slow_version(plain, rows, columns, seed, power):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-2, 3, (rows, columns), generator=generator).float()  # with channels of zeros
    norm = torch.randint(0, 3, (columns,), generator=generator).float()
    scores = ria.score(weight, norm, power=power)
    torch.testing.assert_close(scores, plain.ria(weight, norm, power))
    assert (scores[weight == 0] == 0).all()


def test_scaling_a_matrix_changes_no_score(correlated):
    weight, _ = correlated(5, 7)
    norm = torch.rand(7)
    torch.testing.assert_close(ria.score(weight * 8, norm), ria.score(weight, norm))
