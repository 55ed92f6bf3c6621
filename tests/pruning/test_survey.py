from __future__ import annotations

import weakref

import pytest
import torch

from harness import models
from harness.problems import Problem
from harness.pruning import survey as survey_module
from harness.pruning.recipe import recipe
from harness.pruning.survey import survey
from harness.pruning.walk import walk
from harness.pruning.whole import Setup
from harness.rooms import bind

WANDA = recipe("criterion", "wanda", "unstructured")


@pytest.fixture(params=["llama", "t5", "whisper"])
def case(request, tiny_models):
    model, processor = tiny_models.tiny(request.param)
    return model, tiny_models.batches(request.param, processor), models.blocks(model)


def told(case, *needs, how=WANDA):
    model, batches, blocks = case
    return survey(needs, Setup(model, blocks, batches, how), judge=len)


def test_layers_know_their_block_and_shape(case):
    model, _, blocks = case
    found = Setup(model, blocks, [], WANDA).layers
    assert list(found) == [linear.name for block in blocks for linear in block.linears]
    for index, block in enumerate(blocks):
        for linear in block.linears:
            layer = found[linear.name]
            assert (layer.block, layer.part) == (index, linear.part)
            assert layer.shape == tuple(linear.module.weight.shape) and layer.size == linear.module.weight.numel()


def test_norms_and_scores_are_those_of_the_dense_model(case):
    model, batches, _ = case
    found = told(case, "norms", "scores", "weights")
    dense = {
        name: values["norm"] for _, inputs in walk(model, batches, ["norm"]) for name, values in dict(inputs).items()
    }
    assert len(found["scores"]) == len(list(found["scores"])) == len(dense)
    for name, norm in dense.items():
        torch.testing.assert_close(found["norms"][name], norm)
        torch.testing.assert_close(found["scores"][name], found["weights"][name].abs() * norm)


def test_kernels_compare_the_sequences_at_every_block(case):
    model, batches, blocks = case
    kernels = told(case, "kernels")["kernels"]
    assert list(kernels) == list(range(len(blocks)))
    inputs = {}
    hooks = [
        block.module.register_forward_pre_hook(
            lambda _, args, kwargs, i=i: inputs.setdefault(i, []).append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for i, block in enumerate(blocks)
    ]
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    for hook in hooks:
        hook.remove()
    for index, block in enumerate(blocks):
        rows = []
        for batch, hidden in zip(batches, inputs[index], strict=True):
            keep = models.valid(model, batch)[block.stack]
            rows += [(each * ok[:, None]).double() for each, ok in zip(hidden, keep, strict=True)]
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                common = min(len(one), len(other))
                expected = (one[:common] * other[:common]).sum()
                torch.testing.assert_close(kernels[index][i, j].double(), expected, rtol=1e-4, atol=1e-3)


def test_what_looks_at_no_data_makes_no_forward_pass(case):
    model, _, blocks = case
    how = recipe("criterion", "magnitude", "unstructured")
    found = survey(("weights", "scores", "judge"), Setup(model, blocks, [], how), judge=len)
    name = blocks[0].linears[0].name
    assert torch.equal(found["scores"][name], found["weights"][name].abs()) and found["judge"] is len


def test_a_solver_has_no_scores(case):
    with pytest.raises(Problem, match="a solver has none"):
        told(case, "scores", how=recipe("solver", "sparsegpt", "unstructured"))


def test_an_unknown_need_is_named(case):
    with pytest.raises(Problem, match="needs 'luck', which nothing provides"):
        told(case, "luck")


def test_scores_need_nothing_of_what_the_refiner_does(case):
    """Magnitudes look at no data, so that this makes no forward pass, and would fail for want of batches."""
    model, _, blocks = case
    how = recipe("criterion", "magnitude", "unstructured", "dsnot")
    scores = survey(("scores",), Setup(model, blocks, [], how), judge=len)["scores"]
    linear = blocks[0].linears[0]
    assert how.needs and torch.equal(scores[linear.name], linear.module.weight.abs())


class OnDevice(torch.Tensor):
    """A tensor whose copy on the CPU is another."""

    def cpu(self):
        return self.as_subclass(torch.Tensor).clone()


def test_only_one_blocks_gram_matrices_stay_where_the_walk_made_them(case, monkeypatch):
    model, batches, blocks = case
    grams, most = [], []

    def watched(*args):
        for block, inputs in walk(*args):
            assert all(there() is None for there in grams)
            made = {}
            for values in inputs.values():
                values["gram"] = made.setdefault(id(values["gram"]), values["gram"].as_subclass(OnDevice))
            grams[:] = [weakref.ref(gram) for gram in made.values()]
            most.append(len(grams))
            del made, values
            yield block, inputs

    monkeypatch.setattr(survey_module, "walk", watched)
    how = recipe("criterion", "sparsegpt", "unstructured")
    scores = survey(("scores",), Setup(model, blocks, batches, how), judge=len)["scores"]
    assert len(most) == len(blocks) and all(most) and all(there() is None for there in grams)
    for block, inputs in walk(model, batches, ["gram"]):
        for linear in block.linears:
            expected = bind("criterion", "sparsegpt")(linear.module.weight.detach(), inputs[linear.name]["gram"])
            torch.testing.assert_close(scores[linear.name], expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_scores_are_on_the_weights_device(tiny_models):
    model, processor = tiny_models.tiny("llama")
    how = recipe("criterion", "sparsegpt", "unstructured")
    setup = Setup(model.cuda(), models.blocks(model), tiny_models.batches("llama", processor), how)
    assert all(score.is_cuda for score in survey(("scores",), setup, judge=len)["scores"].values())
