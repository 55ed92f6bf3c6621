from __future__ import annotations

import pytest
import torch
from pytest import approx, mark

from harness.problems import Problem
from harness.tuning import forward
from harness.tuning.forward import Forward
from harness.tuning.losses import squarehead


def result(*states, valid, norm=None, answer=None) -> Forward:
    norms = {} if norm is None else {"decoder": norm}
    return Forward(None, None, answer, {"decoder": valid}, {"decoder": states}, norms)


def test_a_case_worked_by_hand():
    # two positions count, the third is padding; width 2; two blocks
    valid = torch.tensor([[True, True, False]])
    t1 = torch.tensor([[[1.0, 1.0], [1.0, 1.0], [9.0, 9.0]]])
    s1 = torch.tensor([[[1.0, 2.0], [1.0, 1.0], [0.0, 0.0]]])  # mean error 1/4, mean square 1
    t2 = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]]])
    s2 = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [7.0, 7.0]]])  # mean error 2, mean square 2
    student, teacher = result(s1, s2, valid=valid), result(t1, t2, valid=valid)
    assert squarehead.loss(student, teacher, eps=0.0, final="block")["decoder"].item() == 0.25 + 1
    got = squarehead.loss(student, teacher, eps=0.5, final="block")["decoder"].item()
    assert got == approx(0.25 / 1.5 + 2 / 2.5)


def test_the_last_state_is_the_norms_output_or_the_blocks():
    valid = torch.ones(1, 1, dtype=torch.bool)
    one, two, zero = (torch.full((1, 1, 4), x) for x in (1.0, 2.0, 0.0))
    student, teacher = result(one, zero, valid=valid, norm=two), result(one, one, valid=valid, norm=one)
    assert squarehead.loss(student, teacher, eps=0.0, final="block")["decoder"].item() == 1  # (0 - 1)^2 / 1
    assert squarehead.loss(student, teacher, eps=1.0, final="norm")["decoder"].item() == 0.5  # (2 - 1)^2 / (1 + 1)


def test_a_ratio_of_means_is_no_mean_of_ratios():
    valid = torch.ones(1, 2, dtype=torch.bool)
    teacher = result(torch.tensor([[[1.0], [3.0]]]), valid=valid)
    student = result(torch.tensor([[[0.0], [3.0]]]), valid=valid)
    assert squarehead.loss(student, teacher, eps=0.0, final="block")["decoder"].item() == approx(0.5 / 5)


def test_stacks_are_apart_and_a_student_of_zeros_gives_the_depth(tiny, batches):
    batch, model = batches["t5"](), tiny("t5")
    teacher = forward.forward(model, batch, forward.stacks(model))
    zeros = {stack: tuple(torch.zeros_like(x) for x in states) for stack, states in teacher.blocks.items()}
    student = Forward(teacher.loss, teacher.logits, teacher.answer, teacher.valid, zeros)
    parts = squarehead.loss(student, teacher, eps=0.0, final="block")
    assert {k: v.item() for k, v in parts.items()} == approx({"encoder": 2, "decoder": 2})


@mark.parametrize("family", ["llama", "t5"])
@mark.parametrize("final", ["norm", "block"])
def test_teacher_equal_student_gives_zero(tiny, batches, family, final):
    batch, models = batches[family](), [tiny(family), tiny(family)]
    student, teacher = (forward.forward(m.eval(), batch, forward.stacks(m)) for m in models)
    assert all(part.item() == 0 for part in squarehead.loss(student, teacher, final=final).values())


@mark.parametrize("family", ["llama", "t5"])
def test_more_padding_changes_nothing(tiny, teacher, batches, family):
    models = [tiny(family).eval(), teacher(family).eval()]
    batch = batches[family]()
    fills = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    padded = {k: torch.nn.functional.pad(v, (0, 3), value=fills[k]) for k, v in batch.items()}
    short, long = (
        squarehead.loss(*(forward.forward(m, b, forward.stacks(m)) for m in models), eps=1e-9) for b in (batch, padded)
    )
    assert {k: v.item() for k, v in long.items()} == approx({k: v.item() for k, v in short.items()}, rel=1e-4)
    assert all(v.item() > 1e-4 for v in short.values())


def test_a_common_scale_cancels_up_to_eps():
    torch.manual_seed(0)
    valid = torch.rand(3, 5) < 0.7
    s, t = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    plain = squarehead.loss(result(s, valid=valid), result(t, valid=valid), eps=1e-9, final="block")["decoder"]
    scaled = squarehead.loss(result(100 * s, valid=valid), result(100 * t, valid=valid), eps=1e-9, final="block")[
        "decoder"
    ]
    assert scaled.item() == approx(plain.item(), rel=1e-5)
    shrunk = squarehead.loss(result(0.01 * s, valid=valid), result(0.01 * t, valid=valid), final="block")["decoder"]
    assert shrunk.item() < 0.1 * plain.item()  # the default eps is not small there


def test_no_gradient_reaches_padding():
    valid = torch.tensor([[True, False]])
    s, t = torch.randn(1, 2, 4, requires_grad=True), torch.randn(1, 2, 4)
    squarehead.loss(result(s, valid=valid), result(t, valid=valid), final="block")["decoder"].backward()
    assert s.grad[0, 0].abs().min() > 0
    assert torch.equal(s.grad[0, 1], torch.zeros(4))


def test_the_scale_that_eps_meets():
    valid = torch.tensor([[True, False]])
    states = torch.tensor([[[3.0, 1.0], [100.0, 100.0]]])
    assert squarehead.teacher_scale(result(states, valid=valid, norm=2 * states)) == {"decoder": (5.0, 20.0)}


def by_definition(student, teacher, chosen, distance, layers, eps):
    """The switches of the ablation, one position and one number at a time, in float64."""
    found = []
    for s, t in zip(student, teacher, strict=True):
        at = [(i, j) for i in range(s.shape[0]) for j in range(s.shape[1]) if chosen[i, j]]
        rows = [(s[i, j].double().tolist(), t[i, j].double().tolist()) for i, j in at]
        pairs = [pair for row in rows for pair in zip(*row, strict=True)]
        error = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
        found.append({
            "normalised": error / (sum(b**2 for _, b in pairs) / len(pairs) + eps),
            "mse": error,
            "elementwise": sum((a - b) ** 2 / (b**2 + eps) for a, b in pairs) / len(pairs),
            "norm": sum(sum((a - b) ** 2 for a, b in zip(*row, strict=True)) ** 0.5 for row in rows) / len(rows),
        }[distance])  # fmt: skip
    return sum(found) / (len(found) if layers == "mean" else 1)


@mark.parametrize("layers", ["sum", "mean"])
@mark.parametrize("distance", ["normalised", "mse", "elementwise", "norm"])
@mark.parametrize("tokens", ["valid", "answer", "all"])
def test_every_switch_against_its_definition(tokens, distance, layers):
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 4)
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    answer = valid & (torch.arange(5) > 1)
    chosen = {"valid": valid, "answer": answer, "all": torch.ones_like(valid)}[tokens]
    ours, theirs = (result(*each, valid=valid, answer=answer) for each in (student, teacher))
    found = squarehead.loss(ours, theirs, final="block", eps=0.1, tokens=tokens, distance=distance, layers=layers)
    assert list(found) == ["answer" if tokens == "answer" else "decoder"]
    expected = by_definition(student, teacher, chosen, distance, layers, 0.1)
    assert sum(found.values()).item() == approx(expected, rel=1e-5)


def test_the_answer_is_the_decoders_and_the_mean_is_over_both_stacks(tiny, teacher, batches):
    batch, models = batches["t5"](), [tiny("t5").eval(), teacher("t5").eval()]
    student, taught = (forward.forward(m, batch, forward.stacks(m)) for m in models)
    both, answer = squarehead.loss(student, taught), squarehead.loss(student, taught, tokens="answer")
    assert {k: v.item() for k, v in answer.items()} == {"answer": both["decoder"].item()}  # T5's labels are not moved
    mean = squarehead.loss(student, taught, layers="mean")
    assert {k: 4 * v.item() for k, v in mean.items()} == approx({k: v.item() for k, v in both.items()})


def test_the_answer_of_a_causal_model_is_where_it_is_predicted_from(tiny, teacher, batches):
    batch, models = batches["llama"](), [tiny("llama").eval(), teacher("llama").eval()]
    student, taught = (forward.forward(m, batch, forward.stacks(m)) for m in models)
    moved = torch.nn.functional.pad(batch["labels"][:, 1:] != -100, (0, 1))
    there = [Forward(None, None, None, {"decoder": moved}, r.blocks, r.norms) for r in (student, taught)]
    answer = squarehead.loss(student, taught, tokens="answer")["answer"].item()
    assert answer == squarehead.loss(*there)["decoder"].item() != squarehead.loss(student, taught)["decoder"].item()


def test_a_classifier_has_no_answer_of_tokens():
    valid, states = torch.ones(2, 3, dtype=torch.bool), torch.randn(2, 3, 4)
    image = Forward(None, None, torch.ones(2, dtype=torch.bool), {"encoder": valid}, {"encoder": (states,)})
    with pytest.raises(Problem, match="tokens=answer needs answers of tokens"):
        squarehead.loss(image, image, final="block", tokens="answer")


@mark.parametrize("distance", ["normalised", "mse", "elementwise", "norm"])
def test_equal_states_have_a_finite_gradient(distance):
    valid, states = torch.ones(1, 2, dtype=torch.bool), torch.randn(1, 2, 4)
    student = states.clone().requires_grad_()
    found = squarehead.loss(result(student, valid=valid), result(states, valid=valid), final="block", distance=distance)
    found["decoder"].backward()
    assert found["decoder"].item() == 0 and torch.equal(student.grad, torch.zeros_like(states))
