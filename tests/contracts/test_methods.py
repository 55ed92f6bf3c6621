"""What every tuning method promises, on whole models; a new file in the room is checked here by itself."""

from __future__ import annotations

import pytest
import torch
import transformers

from harness import models, rooms
from harness.pruning import keep
from harness.spec.sections import Tune
from harness.tuning import attach, checkpoint, session

ROOM = rooms.ROOMS["method"]
NAMES = ROOM.names()
MERGING = [
    name
    for name in NAMES
    if ROOM.method(name).constants.get("MERGES") is not False and not ROOM.method(name).constants.get("PRUNES")
]
MOVING = [name for name in NAMES if "evolve" in ROOM.method(name).verbs]
SMALL = {"samples": 4, "interval": 2, "window": 1, "density": 0.05, "dropout": 0.0}
"""Values of options that suit a run of some steps; a method takes those that it has."""
EVERYWHERE = [(family, name) for family in ("t5", "whisper", "mpt") for name in ("masked", "lors")]
CASES = [("llama", name) for name in NAMES] + EVERYWHERE


def options(name, **more):
    has = ROOM.method(name).options
    choice = rooms.Choice(name, {key: value for key, value in SMALL.items() if key in has})
    section = {"data": "prose", "task": "language_modelling", "loss": "cross_entropy", "steps": 4, "lr": 1e-2}
    given = {**section, "batch_size": 4, "checkpoint_every": 2, "method": str(rooms.resolve("method", choice)), **more}
    return Tune.model_validate(given).model_dump(mode="json")


@pytest.fixture
def parts(tiny_models, monkeypatch):
    """A function to a pruned tiny model, its rows, their collate and its masks, by default 2:4 in every layer."""
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")

    def make(family="llama", name="masked"):
        model, processor = tiny_models.tiny(family)
        generator, keeps = torch.Generator().manual_seed(0), {}
        for linear in (linear for block in models.blocks(model) for linear in block.linears):
            scores = torch.rand(linear.module.weight.shape, generator=generator)
            pattern = "unstructured:group=row" if name in MOVING else "2:4"
            keeps[linear.name] = rooms.bind("pattern", pattern)(scores, 0.5)
        keep.apply(model, keeps)
        (batch,) = tiny_models.batches(family, processor, size=6)
        rows = [{name: value[at] for name, value in batch.items()} for at in range(6)]
        return model, rows, torch.utils.data.default_collate, keeps

    return make


def fit(parts, name, folder, end=attach.merge, **more):
    """Tunes to the end; returns the model and the masks that it ends with."""
    model, rows, collate, keeps = parts
    run = session.fit(model, rows, collate, options(name, **more), folder, keeps=keeps, end=end)
    while True:
        try:
            next(run)
        except StopIteration as stopped:
            return model, stopped.value[2]


def same(one, other):
    """Says whether two mappings of tensors are equal bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", NAMES)
def test_every_method_says_in_a_line_what_it_is(name):
    summary = ROOM.method(name).summary
    assert summary.endswith(".") and len(summary) < 110


@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_zeros_stay_in_every_step_and_a_resumed_run_is_the_same(parts, tmp_path, family, name):
    model, rows, collate, keeps = parts(family, name)
    more = 0 if ROOM.method(name).constants.get("KEEPS", True) else SMALL["density"]
    budget = {layer: int(mask.sum()) + int(more * mask.numel()) for layer, mask in keeps.items()}
    run = session.fit(model, rows, collate, options(name), tmp_path / "cut", keeps=keeps)
    for _ in range(3):
        next(run)
        masks = {layer: model.get_submodule(layer).keep for layer in keeps}
        keep.verify(model, masks)
        assert all(int(mask.sum()) <= budget[layer] for layer, mask in masks.items())
    run.close()
    assert checkpoint.newest(tmp_path / "cut").name.startswith("step-00000003")
    resumed, after = fit(parts(family, name), name, tmp_path / "cut")
    whole, masks = fit(parts(family, name), name, tmp_path / "whole")
    assert same(whole.state_dict(), resumed.state_dict()) and same(masks, after)
    assert not same(whole.state_dict(), parts(family, name)[0].state_dict()), "nothing was learned"
    if name in MERGING:
        keep.verify(whole, masks)
        assert all(int(mask.sum()) <= budget[layer] for layer, mask in masks.items())


@pytest.mark.parametrize("name", [name for name in MERGING if name not in MOVING])
def test_a_fixed_mask_stays_two_of_four(parts, tmp_path, name):
    model, masks = fit(parts(), name, tmp_path)
    for layer in masks:
        groups = model.get_submodule(layer).weight.unflatten(1, (-1, 4))
        assert int((groups != 0).sum(-1).max()) <= 2, layer


@pytest.mark.parametrize(("family", "name"), CASES)
def test_merged_it_computes_what_it_computed_before(parts, tmp_path, family, name):
    found = {}

    @torch.no_grad()
    def look(attached):
        model.eval()
        found["before"] = model(**batch).logits
        with attach.merged(attached):
            found["merged"] = model(**batch).logits
        found["again"] = model(**batch).logits
        attach.merge(attached)

    model, rows, collate, keeps = parts(family, name)
    asked = [parameter.requires_grad for parameter in model.parameters()]
    batch = collate(rows[:2])
    fit((model, rows, collate, keeps), name, tmp_path, end=look)
    with torch.no_grad():
        found["after"] = model.eval()(**batch).logits
    for logits in found.values():
        torch.testing.assert_close(logits, found["before"], rtol=1e-3, atol=1e-3)
    assert model.state_dict().keys() == parts(family)[0].state_dict().keys()
    assert [parameter.requires_grad for parameter in model.parameters()] == asked


@pytest.mark.parametrize("name", NAMES)
def test_accumulated_batches_are_one_batch(parts, tmp_path, name):
    given = {"steps": 1, "betas": [0.0, 0.999], "clip": 1.0}
    one, two = (
        fit(parts("llama", name), name, tmp_path / str(count), accumulation=count, **given)[0] for count in (1, 2)
    )
    for (layer, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
        # Adam's first step turns on the sign of a gradient, which rounding decides where it is almost 0.
        apart = ((a - b).abs() > 1e-3).float().mean()
        assert apart < 1e-2, f"{layer}: {apart:.2%} of the weights differ"


@pytest.mark.parametrize("name", MERGING)
def test_the_result_loads_in_plain_transformers(parts, tiny_models, tmp_path, name):
    model, masks = fit(parts("llama", name), name, tmp_path / "scratch")
    models.save(model, tiny_models.tiny("llama")[1], tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert same(model.state_dict(), plain.state_dict())
    keep.verify(plain, masks)
