"""What every loss must keep, by its name in the room: a new file is tested by being there."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from harness import rooms
from harness.models import llama, t5
from harness.tuning import forward
from harness.tuning.objective import measure, objective

LOSSES = rooms.ROOMS["loss"].names()
FAMILIES = ("llama", "t5")
FILLS = {"input_ids": 0, "attention_mask": 0, "labels": -100}


def batch_of(family: str, rows: int = 4, time: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(4, 60, (rows, time), generator=generator)
    mask = torch.arange(time) < torch.tensor([[8], [5], [6], [8]])
    labels = ids.masked_fill(~mask, -100)
    labels[:, :2] = -100 if family == "llama" else labels[:, :2]
    return {"input_ids": ids * mask, "attention_mask": mask.long(), "labels": labels}


@pytest.fixture(scope="module")
def pair():
    """By family: a student and a teacher near it, both in eval mode."""
    made = {}
    for name, family in (("llama", llama), ("t5", t5)):
        student = family.tiny(["one two three", "four five six"], seed=0)[0].eval()
        teacher = copy.deepcopy(student)
        torch.manual_seed(1)
        with torch.no_grad():
            for p in teacher.parameters():
                p.add_(torch.randn_like(p), alpha=0.02)
        made[name] = (student, teacher)
    return made


def means(name: str, student, teacher, batch) -> dict[str, torch.Tensor]:
    method = rooms.ROOMS["loss"].method(name)
    hidden = method.constants.get("HIDDEN", False)
    given = {"batch": batch, "total": lambda x: x}
    for role, model in (("student", student), ("teacher", teacher)):
        if role in method.needs:
            given[role] = forward.forward(model, batch, forward.stacks(model) if hidden else None)
    return rooms.bind("loss", name)(*(given[need] for need in method.needs))


@pytest.mark.parametrize("name", LOSSES)
def test_it_asks_for_what_there_is_and_says_what_it_computes(name):
    method = rooms.ROOMS["loss"].method(name)
    assert set(method.needs) <= {"student", "teacher", "batch", "total"} and "student" in method.needs
    assert method.summary.endswith(".") and rooms.load("loss", name).__doc__
    assert isinstance(method.constants.get("HIDDEN", False), bool)


@pytest.mark.parametrize("name", LOSSES)
def test_what_came_after_its_first_results_does_by_default_what_was_done_before(name):
    method = rooms.ROOMS["loss"].method(name)
    since = method.constants.get("SINCE", {})
    assert since == {option: method.options[option].default for option in since}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LOSSES)
def test_it_returns_finite_means_over_known_positions(name, family, pair):
    batch = batch_of(family)
    found = means(name, *pair[family], batch)
    assert found and set(found) <= set(forward.positions(pair[family][0], batch))
    assert all(mean.ndim == 0 and torch.isfinite(mean) and mean > 0 for mean in found.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LOSSES)
def test_its_gradient_reaches_the_student_and_not_the_teacher(name, family, pair):
    student, teacher = (copy.deepcopy(model).requires_grad_() for model in pair[family])
    aim = objective(rooms.resolve_terms("loss", name), student, teacher)
    sum(measure(aim, student, batch_of(family)).values()).backward()
    assert all(p.grad is None for p in teacher.parameters())
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in gradients) and any(g.abs().max() > 0 for g in gradients)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", [n for n in LOSSES if "teacher" in rooms.ROOMS["loss"].method(n).needs])
def test_a_student_that_equals_its_teacher_has_nothing_to_learn(name, family, pair):
    student = pair[family][0]
    assert all(abs(mean.item()) < 1e-6 for mean in means(name, student, student, batch_of(family)).values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_nothing(name, family, pair):
    batch = batch_of(family)
    longer = {key: functional.pad(value, (0, 5), value=FILLS[key]) for key, value in batch.items()}
    short, long = (means(name, *pair[family], each) for each in (batch, longer))
    assert {k: v.item() for k, v in long.items()} == pytest.approx({k: v.item() for k, v in short.items()}, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_is_the_mean_of_its_copies(name, family, pair):
    batch = batch_of(family)
    twice = {key: torch.cat([value, value]) for key, value in batch.items()}
    one, two = (means(name, *pair[family], each) for each in (batch, twice))
    assert {k: v.item() for k, v in two.items()} == pytest.approx({k: v.item() for k, v in one.items()}, rel=1e-5)
