"""The packed engine on models that were quantised: it multiplies with their codes and scales, rounding nothing anew."""

from __future__ import annotations

import copy

import pytest
import torch

from harness import models
from harness.inference import grids, rounding, swap
from harness.inference.agreement import reference
from harness.inference.engines import packed
from harness.inference.kernels.linear import PackedLinear
from harness.inference.prompts import prompts
from harness.inference.weights import dense_weights
from harness.problems import Problem
from harness.quantization.codes import Coded, save
from harness.quantization.grid import spread


@pytest.fixture
def quantised(tiny_models, tmp_path):
    """Quantises the tiny llama to a folder, but for what is skipped; returns a function of that and the grid."""

    def make(skip="none", **grid):
        model, processor = tiny_models.tiny("llama")
        layers = {}
        for name in (name for name in swap.prunable(model) if skip not in name):
            weight = model.get_submodule(name).weight
            own = spread(weight.detach() * 0.9, **{"bits": 8} | grid)
            codes = own.encode(weight)
            weight.data.copy_(own.decode(codes))
            layers[name] = Coded(codes, own)
        models.save(model, processor, tmp_path)
        save(tmp_path, layers)
        return dense_weights(tmp_path), layers

    return make


@pytest.mark.parametrize("grid", [{}, {"group": 64}, {"bits": 4, "symmetric": False}])
@pytest.mark.parametrize("join", [True, False])
def test_codes_and_scales_are_taken_as_they_are(grid, join, quantised):
    model, layers = quantised(**grid)
    engine = packed.prepare(copy.deepcopy(model), precision="int8", join=join)
    for name, layer in layers.items():
        found, rows = rounding._found(engine, name)
        assert torch.equal(rounding.multiplied(found)[rows], layer.grid.decode(layer.codes))
    inputs = prompts(model, 2, 6, seed=0)
    said = rounding.verify(model, engine, inputs, reference(model, inputs, 4))
    assert said["weight_error"] == 0 and said["own_error"] <= said["bound"]


def test_a_layer_that_was_left_out_is_rounded_by_itself(quantised):
    model, layers = quantised(skip="k_proj")
    engine = packed.prepare(copy.deepcopy(model), precision="int8")
    for name in swap.prunable(model):
        found, rows = rounding._found(engine, name)
        assert torch.equal(rounding.multiplied(found)[rows], model.get_submodule(name).weight) == (name in layers)


def test_a_weight_that_is_zeroed_stays_on_the_grid_and_one_that_changes_does_not(quantised):
    model, layers = quantised()
    name = next(iter(layers))
    model.get_submodule(name).weight.data[:, ::2] = 0
    engine = packed.prepare(copy.deepcopy(model), precision="int8", join=False)
    assert isinstance(engine.get_submodule(name), PackedLinear)
    model.get_submodule(name).weight.data[0, 1] += 1e-4
    with pytest.raises(Problem, match="lie off the grid") as problem:
        packed.prepare(copy.deepcopy(model), precision="int8", join=False)
    assert name in str(problem.value)
    packed.prepare(model, precision="fp32")


def test_codes_that_a_byte_has_not_are_refused(quantised):
    model, _ = quantised(symmetric=False)
    assert grids.joined([model.get_submodule(swap.prunable(model)[0])]) is not None
    with pytest.raises(Problem, match="int8 ends at 127"):
        packed.prepare(model, precision="int8")
