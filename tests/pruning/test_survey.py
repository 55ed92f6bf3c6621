from __future__ import annotations

import pytest
import torch

from harness import models
from harness.problems import Problem
from harness.pruning.recipe import recipe
from harness.pruning.survey import survey
from harness.pruning.walk import walk
from harness.pruning.whole import Setup

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
