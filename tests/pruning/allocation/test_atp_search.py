from __future__ import annotations

import math

import pytest

from harness.problems import Problem
from harness.pruning.allocation import atp, atp_search


class Judge:
    """The loss is how far the progression's step is from the best one; keeps what it was asked."""

    def __init__(self, layers, best, losses=None):
        self.layers, self.best, self.losses, self.betas = layers, best, losses, []

    def __call__(self, rates):
        beta = round(rates["1.up"] - rates["0.up"], 9)
        self.betas.append(beta)
        return self.losses(beta) if self.losses else abs(beta - self.best)


@pytest.mark.parametrize(
    ("blocks", "sparsity", "trials"), [(32, 0.5, 16), (32, 0.6, 12), (32, 0.7, 9), (32, 0.8, 6), (80, 0.7, 3)]
)
def test_the_papers_numbers_of_trials(stack, blocks, sparsity, trials):
    layers = stack(blocks)
    judge = Judge(layers, 0.0061)
    rates = atp_search.allocate(layers, sparsity, judge)
    assert judge.betas == pytest.approx([0.002 * k for k in range(1, trials + 1)])
    assert rates == atp.allocate(layers, sparsity, beta=0.006)


def test_betas_are_the_decimals_that_a_person_writes():
    assert atp_search.grid(0.03, 0.002, None) == [float(f"0.0{k:02d}") for k in range(2, 31, 2)]
    assert atp_search.grid(0.3, 0.1, None) == [0.1, 0.2, 0.3]


def test_beta_0_is_tried_when_asked(stack):
    layers = stack(8)
    judge = Judge(layers, 0.0)
    rising = atp_search.allocate(layers, 0.7, judge, step=0.02)
    assert judge.betas == pytest.approx([0.02, 0.04, 0.06, 0.08]) and rising["0.up"] < rising["7.up"]
    assert set(atp_search.allocate(layers, 0.7, judge, step=0.02, uniform=True).values()) == {0.7}


def test_a_number_of_trials_instead_of_a_step(stack):
    layers = stack(8)
    judge = Judge(layers, 1.0)
    rates = atp_search.allocate(layers, 0.7, judge, trials=4)
    highest = 2 * 0.3 / 7
    assert judge.betas == pytest.approx([highest * k / 4 for k in range(1, 5)], abs=1e-9)
    assert rates["7.up"] == pytest.approx(1)


def test_of_equal_losses_the_first(stack):
    layers = stack(8)
    assert atp_search.allocate(layers, 0.7, lambda rates: 1.0) == atp.allocate(layers, 0.7, beta=0.002)


def test_a_loss_that_is_infinite_is_not_chosen_and_one_that_is_no_number_is_a_problem(stack):
    layers = stack(8)
    some = Judge(layers, 0, lambda beta: math.inf if beta < 0.03 else beta)
    assert atp_search.allocate(layers, 0.7, some, step=0.02) == atp.allocate(layers, 0.7, beta=0.04)
    with pytest.raises(Problem, match=r"beta=0\.04 is not a number"):
        atp_search.allocate(layers, 0.7, Judge(layers, 0, lambda beta: beta if beta < 0.03 else math.nan), step=0.02)
    with pytest.raises(Problem, match=r"infinite for every beta from 0\.02 to 0\.08"):
        atp_search.allocate(layers, 0.7, lambda rates: math.inf, step=0.02)


@pytest.mark.parametrize(
    ("blocks", "sparsity", "options", "message"),
    [
        (1, 0.7, {}, "one block has no depth"),
        (8, 0.7, {"step": 0.1}, r"the first is 0\.1, the largest possible 0\.08571"),
        (8, 0.0, {}, r"the largest possible 0\n"),
        (8, 0.0, {"trials": 3}, r"the largest possible 0\n"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_judged(stack, blocks, sparsity, options, message):
    layers = stack(blocks)
    judge = Judge(layers, 0)
    with pytest.raises(Problem, match=message):
        atp_search.allocate(layers, sparsity, judge, **options)
    assert not judge.betas
