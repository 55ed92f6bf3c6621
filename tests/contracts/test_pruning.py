"""What every criterion, pattern, allocation and solver promises; a new file in a room is checked here by itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from harness.models import Linear
from harness.pruning.recipe import prune, recipe
from harness.pruning.statistics import STATISTICS
from harness.rooms import ROOMS, bind

PATTERNS = ROOMS["pattern"].names()
METHODS = [(kind, name) for kind in ("criterion", "solver") for name in ROOMS[kind].names()]


def statistics(columns, seed=0):
    """Every statistic there is of one correlated input."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    found = {name: kind(columns, x.device) for name, kind in STATISTICS.items()}
    for statistic in found.values():
        statistic.add(x)
    return {name: statistic.value for name, statistic in found.items()}


def layer(dtype=torch.float32):
    torch.manual_seed(0)
    return Linear("layer", nn.Linear(48, 20).to(dtype), "decoder")


@pytest.mark.parametrize("kind", ["criterion", "pattern", "allocation", "solver"])
def test_every_method_says_in_a_line_what_it_is(kind):
    for name in ROOMS[kind].names():
        method = ROOMS[kind].method(name)
        assert method.summary.endswith(".") and len(method.summary) < 110, f"{kind} {name}: {method.summary!r}"
        if kind in ("criterion", "solver"):
            assert method.constants["GROUP"] in ("row", "matrix"), f"{kind} {name} does not say its GROUP"


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_any_method_goes_with_any_pattern(kind, name, pattern):
    how, inputs = recipe(kind, name, pattern), statistics(48)
    given = {need: inputs[need].clone() for need in how.needs}
    results = []
    for _ in range(2):
        linear = layer()
        keep, row = prune(linear, given, 0.5, how)
        results.append((keep, linear.module.weight.detach().clone()))
        assert row["zeros"] == int((~keep).sum()) == 480 and (linear.module.weight[~keep] == 0).all()
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other), "twice the same gives two results"
    for need in how.needs:
        assert torch.equal(given[need], inputs[need]), f"{name} changes the statistic {need}"


@pytest.mark.parametrize(("kind", "name"), METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_kept(kind, name, dtype):
    how, inputs, linear = recipe(kind, name, "unstructured"), statistics(48), layer(dtype)
    keep, _ = prune(linear, {need: inputs[need] for need in how.needs}, 0.5, how)
    assert linear.module.weight.dtype == dtype and keep.dtype == torch.bool


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_a_method_does_not_change_the_weight_it_is_given(kind, name):
    how, inputs = recipe(kind, name, "unstructured"), statistics(48)
    weight = layer().module.weight.detach()
    before = weight.clone()
    solved = how.solve(weight, {need: inputs[need] for need in how.needs}, 0.7)
    assert torch.equal(weight, before) and solved.weight.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_no_sparsity_prunes_nothing(kind, name):
    how, inputs, linear = recipe(kind, name, "unstructured"), statistics(48), layer()
    keep, _ = prune(linear, {need: inputs[need] for need in how.needs}, 0.0, how)
    assert keep.all()
    torch.testing.assert_close(linear.module.weight, layer().module.weight)


@pytest.mark.parametrize(("name", "sparsity"), itertools.product(ROOMS["allocation"].names(), [0.0, 0.5, 0.9]))
def test_an_allocation_keeps_the_sparsity_over_all_weights(name, sparsity):
    layers = {"a": (64, 64), "b": (256, 64), "c": (64, 256)}
    given = bind("allocation", name)(layers, sparsity)
    assert given.keys() == layers.keys() and all(0 <= s < 1 for s in given.values())
    sizes = {layer: rows * columns for layer, (rows, columns) in layers.items()}
    assert sum(given[layer] * size for layer, size in sizes.items()) == pytest.approx(sparsity * sum(sizes.values()))
