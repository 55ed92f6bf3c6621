from __future__ import annotations

import pytest
import torch

from harness import rooms
from harness.problems import Problem
from harness.tuning import objective as o


def terms(text):
    return rooms.resolve_terms("loss", text)


def test_a_term_of_weight_zero_is_left_out_with_its_teacher(tiny, batches):
    made = o.objective(terms("cross_entropy + 0*kl + 0*squarehead"), tiny())
    assert [s.name for s in made.summands] == ["cross_entropy"]
    assert made.teacher is None and made.stacks == {}


def test_a_teacher_that_no_term_needs_is_not_run(tiny, batches):
    teacher = tiny()
    teacher.forward = None
    made = o.objective(terms("cross_entropy"), tiny(), teacher)
    assert o.measure(made, tiny(), batches["llama"]())[("cross_entropy", "answer")] > 0


def test_the_teacher_is_frozen_and_in_eval_mode(tiny, teacher, batches):
    taught = teacher().train()
    made = o.objective(terms("kl"), tiny(), taught)
    assert not taught.training and not any(p.requires_grad for p in taught.parameters())
    assert not o.teach(made, batches["llama"]()).logits.requires_grad


def test_every_mean_is_named_by_its_loss_and_positions(tiny, teacher, batches):
    model = tiny("t5")
    made = o.objective(terms("0.5*cross_entropy + kl + squarehead:eps=1e-9,final=block"), model, teacher("t5"))
    means = o.measure(made, model, batches["t5"]())
    assert list(means) == [
        ("cross_entropy", "answer"),
        ("kl", "answer"),
        ("squarehead", "encoder"),
        ("squarehead", "decoder"),
    ]
    assert all(torch.isfinite(m) and m > 0 for m in means.values())


def test_wrong_objectives_say_what_is_missing(tiny):
    with pytest.raises(Problem, match=r"every term of '0\*cross_entropy' weighs nothing"):
        o.objective(terms("0*cross_entropy"), tiny())
    with pytest.raises(Problem, match="'squarehead' needs a teacher"):
        o.objective(terms("cross_entropy + squarehead"), tiny())


def test_models_of_different_depth_are_refused(tiny):
    student, teacher = tiny(), tiny()
    del teacher.model.layers[-1]
    with pytest.raises(Problem, match="differ in depth"):
        o.objective(terms("squarehead"), student, teacher)
