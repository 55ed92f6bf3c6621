"""What every pruning method promises; a new file in a room is checked here by itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from harness import models
from harness.models import Linear
from harness.pruning.gradients import GRADIENTS
from harness.pruning.recipe import prune, recipe
from harness.pruning.statistics import STATISTICS
from harness.pruning.survey import survey
from harness.pruning.whole import Setup
from harness.rooms import ROOMS, bind

PATTERNS = ROOMS["pattern"].names()
METHODS = [(kind, name) for kind in ("criterion", "solver") for name in ROOMS[kind].names()]
KINDS = ("criterion", "pattern", "allocation", "solver", "refiner", "ramp")


def inputs(columns=48, rows=20, seed=0):
    """Every statistic of one correlated input with a mean, in two sequences, and a gradient."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, columns, generator=generator) @ torch.randn(columns, columns, generator=generator) + 0.5
    found = {name: kind(columns, x.device) for name, kind in STATISTICS.items()}
    for statistic in found.values():
        statistic.add(x, torch.tensor([80, 120]))
    given = {name: statistic.value for name, statistic in found.items()}
    slopes = {name: torch.rand(rows, columns, generator=generator) + 0.1 for name in GRADIENTS}
    return {**given, **slopes, "layer": "layer", "part": "attention"}


def layer(dtype=torch.float32):
    torch.manual_seed(0)
    return Linear("layer", nn.Linear(48, 20).to(dtype), "decoder", "attention")


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_says_in_a_line_what_it_is(kind):
    for name in ROOMS[kind].names():
        method = ROOMS[kind].method(name)
        assert method.summary.endswith(".") and len(method.summary) < 110, f"{kind} {name}: {method.summary!r}"
        if kind in ("criterion", "solver"):
            assert method.constants["GROUP"] in ("row", "matrix"), f"{kind} {name} does not say its GROUP"
        if kind == "refiner":
            assert set(method.constants["PATTERNS"]) <= set(PATTERNS), f"{name} keeps patterns that do not exist"


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_any_method_goes_with_any_pattern(kind, name, pattern):
    how, given = recipe(kind, name, pattern), inputs()
    before = {need: value.clone() for need, value in given.items() if isinstance(value, torch.Tensor)}
    results = []
    for _ in range(2):
        linear = layer()
        keep, row = prune(linear, given, 0.5, how)
        results.append((keep, linear.module.weight.detach().clone()))
        assert row["zeros"] == int((~keep).sum()) == 480 and (linear.module.weight[~keep] == 0).all()
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other), "twice the same gives two results"
    for need, value in before.items():
        assert torch.equal(value, given[need]), f"{name} changes the {need} it is given"


@pytest.mark.parametrize(("kind", "name"), METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_kept(kind, name, dtype):
    how, linear = recipe(kind, name, "unstructured"), layer(dtype)
    keep, _ = prune(linear, inputs(), 0.5, how)
    assert linear.module.weight.dtype == dtype and keep.dtype == torch.bool


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_a_method_does_not_change_the_weight_it_is_given(kind, name):
    how = recipe(kind, name, "unstructured")
    weight = layer().module.weight.detach()
    before = weight.clone()
    solved = how.solve(weight, inputs(), 0.7)
    assert torch.equal(weight, before) and solved.weight.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_no_sparsity_prunes_nothing(kind, name):
    how, linear = recipe(kind, name, "unstructured"), layer()
    keep, _ = prune(linear, inputs(), 0.0, how)
    assert keep.all()
    torch.testing.assert_close(linear.module.weight, layer().module.weight)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [(name, p) for name in ROOMS["refiner"].names() for p in ROOMS["refiner"].method(name).constants["PATTERNS"]],
)
@pytest.mark.parametrize("criterion", ROOMS["criterion"].names())
def test_a_refiner_keeps_the_pattern_and_the_kept_weights(name, pattern, criterion):
    how, linear = recipe("criterion", criterion, pattern, name), layer()
    dense = linear.module.weight.detach().clone()
    keep, row = prune(linear, inputs(), 0.5, how)
    assert row["zeros"] == 480 and torch.equal(linear.module.weight[keep], dense[keep])
    assert ((~keep).sum(1) == 24).all(), "a row has other zeros than its start"


@pytest.mark.parametrize(("name", "sparsity"), itertools.product(ROOMS["ramp"].names(), [0.6, 0.9]))
def test_a_ramp_climbs_to_the_sparsity(name, sparsity):
    targets = bind("ramp", name)(sparsity)
    assert targets[-1] == pytest.approx(sparsity) and targets == sorted(set(targets)) and targets[0] > 0


@pytest.fixture(scope="module")
def surveyed(tiny_models):
    """A tiny model, its batches, blocks and layers."""
    model, processor = tiny_models.tiny("llama")
    return model, tiny_models.batches("llama", processor), models.blocks(model)


REQUIRED_OPTIONS = {"atp": "atp:beta=0.05"}


@pytest.mark.parametrize(("name", "sparsity"), itertools.product(ROOMS["allocation"].names(), [0.5, 0.6]))
def test_an_allocation_keeps_the_sparsity_over_all_weights(name, sparsity, surveyed):
    model, batches, blocks = surveyed
    how = recipe("criterion", "wanda", "unstructured")
    setup = Setup(model, blocks, batches, how)
    known = setup.layers
    needs = ROOMS["allocation"].method(name).needs[2:]
    told = survey(needs, setup, judge=lambda rates: rates["model.layers.0.self_attn.q_proj"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rates = bind("allocation", REQUIRED_OPTIONS.get(name, name))(known, sparsity, **told)
    assert rates.keys() == known.keys() and all(0 <= rate <= 1 for rate in rates.values())
    sizes = {layer: known[layer].size for layer in known}
    reached = how.fit(rates, known, sparsity)
    zeros = sum(int((~how.choose(torch.rand(known[n].shape), reached[n])).sum()) for n in known)
    step = max(layer.shape[0] for layer in known.values())  # the least that a pattern by rows can add
    assert abs(zeros - sparsity * sum(sizes.values())) <= (step if len(set(rates.values())) > 1 else step * len(known))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
