from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from pytest import approx, mark

from harness.tuning import forward
from harness.tuning.forward import predicting
from harness.tuning.losses import kl


def result(logits, labels, causal):
    return SimpleNamespace(logits=logits, answer=predicting(labels, causal))


def of_odds(*odds: float) -> torch.Tensor:
    """Logits [1, time, 2] whose first class has these odds."""
    return torch.tensor([[[math.log(o), 0.0] for o in odds]])


def test_a_case_worked_by_hand():
    labels = torch.tensor([[7]])
    student, teacher = (result(of_odds(o), labels, causal=False) for o in (1.0, 3.0))
    # p = (3/4, 1/4), q = (1/2, 1/2)
    by_hand = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl.loss(student, teacher)["answer"].item() == approx(by_hand, rel=1e-6)


def test_the_temperature_divides_logits_and_its_square_multiplies():
    labels = torch.tensor([[7]])
    student, teacher = (result(of_odds(o), labels, causal=False) for o in (1.0, 9.0))
    # odds 9 at temperature 2 are odds 3
    by_hand = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kl.loss(student, teacher, temperature=2.0)["answer"].item() == approx(by_hand, rel=1e-6)


@mark.parametrize("position, counts", [(0, False), (1, True), (2, True), (3, False), (4, False)])
def test_a_causal_model_counts_the_position_before_each_label(position, counts):
    # prompt, prompt, answer, answer (the end token), padding: positions 1 and 2 predict the answer
    labels = torch.tensor([[-100, -100, 5, 6, -100]])
    odds = [1.0] * 5
    teacher = result(of_odds(*odds), labels, causal=True)
    odds[position] = 3.0
    value = kl.loss(result(of_odds(*odds), labels, causal=True), teacher)["answer"].item()
    one = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert value == approx(one / 2 if counts else 0.0, rel=1e-6)


@mark.parametrize("position, counts", [(0, True), (1, True), (2, False)])
def test_an_encoder_decoder_model_counts_the_position_of_each_label(position, counts):
    labels = torch.tensor([[5, 6, -100]])
    odds = [1.0] * 3
    teacher = result(of_odds(*odds), labels, causal=False)
    odds[position] = 3.0
    value = kl.loss(result(of_odds(*odds), labels, causal=False), teacher)["answer"].item()
    assert (value > 0.05) is counts


@mark.parametrize("family", ["llama", "t5"])
def test_teacher_equal_student_gives_zero(tiny, batches, family):
    batch = batches[family]()
    a, b = (forward.forward(tiny(family), batch) for _ in range(2))
    assert kl.loss(a, b)["answer"].item() == 0
    assert kl.loss(a, b, temperature=3.0)["answer"].item() == approx(0, abs=1e-6)
