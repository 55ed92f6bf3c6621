"""The graph of a step, and runtimes that run it in the model's place, where their packages are installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness import rooms
from harness.inference import onnx
from harness.inference.agreement import TOLERANCE, agreement, reference
from harness.inference.greedy import generate
from harness.inference.prompts import prompts
from harness.problems import Problem

PEERS = [name for name in rooms.ROOMS["engine"].names() if rooms.ROOMS["engine"].method(name).constants.get("PEER")]


def by_the_step(model):
    """A runtime that is PyTorch itself, running the step that would be exported."""
    step = onnx.Step(model)

    def run(given):
        past = [torch.from_numpy(given[f"past.{i}"]) for i in range(2 * model.config.num_hidden_layers)]
        ids, mask = (torch.from_numpy(given[name]) for name in ("input_ids", "attention_mask"))
        return [each.detach().numpy() for each in step(ids, mask, past)]

    return run


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_graph_stands_for_the_model(family, tiny_models):
    model, _ = tiny_models.tiny(family)
    inputs = prompts(model, 3, 6, seed=0)
    graph = onnx.Graph(model, by_the_step(model))
    assert agreement(graph, inputs, reference(model, inputs, 5))["logit_error"] < TOLERANCE
    assert torch.equal(generate(graph, inputs, 4).tokens, generate(model, inputs, 4).tokens)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_a_step_is_traced_for_all_lengths_and_has_the_last_logits_alone(family, tiny_models):
    model, _ = tiny_models.tiny(family)
    given, shapes = onnx.example(model)
    with torch.no_grad():
        traced = torch.export.export(onnx.Step(model), given, dynamic_shapes=shapes).module()
        past = [torch.randn(3, each.shape[1], 5, each.shape[3]) for each in given[2]]
        asked = (torch.randint(9, (3, 4)), torch.ones(3, 9, dtype=torch.long), past)
        found, expected = traced(*asked), onnx.Step(model)(*asked)
    assert found[0].shape == (3, 1, model.config.vocab_size) and found[1].shape[2] == 9
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_an_empty_cache_has_the_shape_of_the_model_s(tiny_models):
    model, _ = tiny_models.tiny("llama")
    seen = {}

    def run(given):
        seen.update(given)
        return [np.zeros((2, 3, 5), np.float32)]

    onnx.Graph(model, run)(torch.ones(2, 3, dtype=torch.long))
    assert seen["past.0"].shape == (2, model.config.num_key_value_heads, 0, model.config.head_dim)
    assert seen["attention_mask"].tolist() == [[1] * 3] * 2


@pytest.mark.parametrize("family", ["t5", "whisper"])
def test_an_encoder_is_refused(family, tiny_models, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "missing", lambda packages: None)
    with pytest.raises(Problem, match="not written as one step"):
        onnx.export(tiny_models.tiny(family)[0], tmp_path)


@pytest.mark.parametrize("engine", PEERS)
def test_a_peer_says_what_the_model_says(engine, tiny_models):
    if reason := rooms.bind("engine", engine, "available")():
        pytest.skip(reason)
    model, _ = tiny_models.tiny("llama")
    inputs = prompts(model, 2, 6, seed=0)
    dense = reference(model, inputs, 4)
    assert agreement(rooms.bind("engine", engine)(model), inputs, dense)["logit_error"] < TOLERANCE
