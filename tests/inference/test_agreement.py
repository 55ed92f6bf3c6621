"""An engine that says something else than the dense weights is found out."""

from __future__ import annotations

import copy

import pytest
import torch

from harness import rooms
from harness.inference.agreement import TOLERANCE, agreement, check, exact, reference
from harness.inference.prompts import prompts
from harness.inference.swap import prunable
from harness.problems import Problem


@pytest.fixture
def dense(tiny_models):
    model, _ = tiny_models.tiny("llama")
    inputs = prompts(model, 2, 8, seed=0)
    return model, inputs, reference(model, inputs, 5)


def test_a_model_agrees_with_itself(dense):
    model, inputs, said = dense
    assert agreement(model, inputs, said) == {"greedy_equal": True, "same_choice": 1.0, "logit_error": 0.0}


def test_the_error_is_in_standard_deviations_of_the_logits(dense):
    model, inputs, said = dense
    model.lm_head = copy.deepcopy(model.lm_head)  # it is tied to the embedding
    model.lm_head.weight.data *= 1.5
    largest = float((said.logits.abs().amax(-1) / said.logits.std(-1)).max())
    found = agreement(model, inputs, said)
    assert found["greedy_equal"] and found["same_choice"] == 1
    assert found["logit_error"] == pytest.approx(0.5 * largest, rel=1e-4)


def test_another_model_is_refused_where_it_should_be_exact(dense):
    model, inputs, said = dense
    model.get_submodule(prunable(model)[0]).weight.data[0] *= -3
    found = exact(agreement(model, inputs, said))
    with pytest.raises(Problem, match="torch_csr computes other logits"):
        check("torch_csr", found)
    check("torch_csr", found | {"own_error": TOLERANCE})
    with pytest.raises(Problem, match="off by nan"):
        check("torch_csr", found | {"own_error": float("nan")})


def test_logits_that_are_no_numbers_are_refused(dense):
    model, inputs, said = dense
    model.model.norm.weight.data[0] = torch.inf
    with pytest.raises(Problem, match="not finite"):
        agreement(model, inputs, said)


def test_bfloat16_is_compared_in_float32(dense):
    model, inputs, said = dense
    rounded = rooms.bind("engine", "torch_dense:dtype=bfloat16")(copy.deepcopy(model))
    assert TOLERANCE < agreement(rounded, inputs, said)["logit_error"] < 0.2


def test_a_model_that_computes_no_number_is_no_reference(dense):
    model, inputs, _ = dense
    model = copy.deepcopy(model)
    name = f"{prunable(model)[4]}.weight"
    model.get_parameter(name).data[3, 3] = float("nan")
    with pytest.raises(Problem, match="the model computes logits that are not finite") as caught:
        reference(model, inputs, 3)
    assert caught.value.where == name and "this weight" in caught.value.hint
    model.get_parameter(name).data.fill_(3e38)
    with pytest.raises(Problem, match="the model computes logits that are not finite") as caught:
        reference(model, inputs, 3)
    assert caught.value.where is None and "activations" in caught.value.hint
