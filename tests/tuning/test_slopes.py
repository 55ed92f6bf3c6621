from __future__ import annotations

import pytest
import torch

from harness import models, rooms
from harness.problems import Problem
from harness.tuning.devices import accelerator_for
from harness.tuning.objective import measure, objective
from harness.tuning.slopes import mean_gradients


@pytest.fixture
def given(tiny, teacher, batches, monkeypatch):
    """A model, its aim, and four micro-batches of two rows, two a step."""
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    model, whole = tiny(), batches["llama"](rows=8)
    micro = [{name: value[at : at + 2] for name, value in whole.items()} for at in range(0, 8, 2)]
    aim = objective(rooms.resolve_terms("loss", "cross_entropy + 0.5*squarehead"), model, teacher())
    layers = [linear.name for block in models.blocks(model) for linear in block.linears]
    return model, aim, lambda step: micro[2 * step : 2 * step + 2], accelerator_for("fp32"), layers


def test_it_is_the_mean_over_examples_of_what_is_descended(given):
    model, aim, of, accelerator, layers = given
    found = mean_gradients(model, aim, of, accelerator, layers, 6)
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    total = 0
    taken = (*of(0), of(1)[0])
    labels, tokens = ([int(count(batch)) for batch in taken] for count in (scored, shown))
    for batch, answers, valid in zip(taken, labels, tokens, strict=True):
        means = measure(aim, model, batch)
        squarehead = sum(mean for (name, _), mean in means.items() if name == "squarehead")
        total += means["cross_entropy", "answer"] * answers / sum(labels) + 0.5 * squarehead * valid / sum(tokens)
    total.backward()
    for name in layers:
        torch.testing.assert_close(found[name], model.get_submodule(name).weight.grad, rtol=1e-4, atol=1e-7)


def scored(batch):
    return (batch["labels"][:, 1:] != -100).sum()


def shown(batch):
    return batch["attention_mask"].sum()


def test_the_last_batch_is_cut_and_the_model_left_as_it_was(given):
    model, aim, of, accelerator, layers = given
    before = [parameter.requires_grad for parameter in model.parameters()]
    three, four = (mean_gradients(model, aim, of, accelerator, layers, samples) for samples in (3, 4))
    assert not torch.equal(three[layers[0]], four[layers[0]])
    assert [parameter.requires_grad for parameter in model.parameters()] == before


def test_a_layer_that_nothing_depends_on_is_named(given):
    model, aim, of, accelerator, layers = given
    model.unused = torch.nn.Linear(2, 2)
    with pytest.raises(Problem, match=r"unused.*does not depend"):
        mean_gradients(model, aim, of, accelerator, [*layers, "unused"], 2)
