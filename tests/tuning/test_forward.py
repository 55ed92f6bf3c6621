from __future__ import annotations

import torch
from pytest import mark

from harness.models import mpt
from harness.tuning import forward


def test_the_positions_that_predict_scored_labels():
    labels = torch.tensor([[-100, -100, 7, 8, -100], [-100, 7, -100, 8, 9]])
    assert forward.predicting(labels, causal=True).int().tolist() == [[0, 1, 1, 0, 0], [1, 0, 1, 1, 0]]
    assert torch.equal(forward.predicting(labels, causal=False), labels != -100)


@mark.parametrize("family", ["llama", "mpt"])
def test_hidden_states_are_those_that_transformers_lists(tiny, batches, family):
    model = (tiny() if family == "llama" else mpt.tiny(["some text to read"], seed=0)[0]).eval()
    batch = batches["llama"]()
    theirs = model(**batch, output_hidden_states=True).hidden_states
    result = forward.forward(model, batch, forward.stacks(model))
    ours = (*result.blocks["decoder"][:-1], result.norms["decoder"])
    assert len(ours) == len(theirs) - 1  # theirs begin with the embedding's output
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs[1:], strict=True))


def test_both_stacks_of_an_encoder_decoder_model(tiny, batches):
    model, batch = tiny("t5").eval(), batches["t5"]()
    result = forward.forward(model, batch, forward.stacks(model))
    theirs = model(**batch, output_hidden_states=True)
    assert torch.equal(result.norms["encoder"], theirs.encoder_hidden_states[-1])
    assert torch.equal(result.blocks["decoder"][0], theirs.decoder_hidden_states[1])
    assert {k: v.shape for k, v in result.valid.items()} == {k: v[0].shape[:2] for k, v in result.blocks.items()}


def test_hidden_states_carry_a_gradient_and_the_hooks_are_gone(tiny, batches):
    model = tiny()
    result = forward.forward(model, batches["llama"](), forward.stacks(model))
    result.blocks["decoder"][0].sum().backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad is not None
    assert not any(m._forward_hooks for m in model.modules())


def test_hidden_states_that_nobody_asked_for_are_not_kept(tiny, batches):
    result = forward.forward(tiny(), batches["llama"]())
    assert result.blocks == {} and result.norms == {}


def test_gradients_of_hidden_states_survive_gradient_checkpointing(tiny, batches):
    gradients = []
    for checkpointed in (False, True):
        model = tiny().train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        result = forward.forward(model, batches["llama"](), forward.stacks(model))
        sum(x.square().mean() for x in result.blocks["decoder"]).backward()
        gradients.append(model.model.layers[0].mlp.up_proj.weight.grad)
    assert torch.equal(*gradients)


@mark.parametrize("family", ["llama", "t5"])
def test_without_its_loss_a_model_computes_the_same(tiny, batches, family):
    model, batch = tiny(family).eval(), batches[family]()
    one, other = (forward.forward(model, batch, forward.stacks(model), scored=scored) for scored in (True, False))
    assert one.loss is not None and other.loss is None
    assert torch.equal(one.logits, other.logits) and torch.equal(one.answer, other.answer)
    assert all(torch.equal(one.norms[stack], norm) for stack, norm in other.norms.items())
    heard = {}
    model.register_forward_pre_hook(lambda _, given, named: heard.update(named), with_kwargs=True)
    forward.forward(model, batch, scored=False)
    assert ("labels" in heard) == (family == "t5")
