"""What every tuning method promises, on whole models; a new file in the room is checked here by itself."""

from __future__ import annotations

import pytest
import torch
import transformers
from pydantic import ValidationError

from harness import models, rooms
from harness.pruning import keep
from harness.spec.sections import Tune
from harness.tuning import attach, checkpoint, session
from harness.tuning.bits import Bits

ROOM = rooms.ROOMS["method"]
NAMES = ROOM.names()
MERGING = [
    name
    for name in NAMES
    if ROOM.method(name).constants.get("MERGES") is not False and not ROOM.method(name).constants.get("PRUNES")
]
MOVING = [name for name in NAMES if "evolve" in ROOM.method(name).verbs]
FROZEN = [name for name in MERGING if ROOM.method(name).constants.get("FREEZES")]
NM = [n for n in NAMES if ROOM.method(n).constants.get("KEEPS", True) and not ROOM.method(n).constants.get("PRUNES")]
"""Those whose result is N:M as it is; that of one that prunes again is the tune stage's (tests/stages/test_tune.py)."""
FIXED = {n: {ROOM.method(n).constants["REVIVES"]: False} for n in NAMES if "REVIVES" in ROOM.method(n).constants}
"""What makes a method keep the mask that it was given."""
RANDOM = {"dropout": 0.2, "ranks": "16-8-4"}
DRAWING = [name for name in NAMES if RANDOM.keys() & ROOM.method(name).options.keys()]
SMALL = {"samples": 4, "interval": 2, "window": 1, "density": 0.05, "dropout": 0.0}
"""Values of options that suit a run of some steps; a method takes those that it has."""
EVERYWHERE = [(family, name) for family in ("t5", "whisper", "mpt") for name in ("masked", "lors")]
CASES = [("llama", name) for name in NAMES] + EVERYWHERE


def options(name, given=(), **more):
    has = ROOM.method(name).options
    choice = rooms.Choice(name, {key: value for key, value in {**SMALL, **dict(given)}.items() if key in has})
    section = {"data": "prose", "task": "language_modelling", "loss": "cross_entropy", "steps": 4, "lr": 1e-2}
    given = {**section, "batch_size": 4, "checkpoint_every": 2, "method": str(rooms.resolve("method", choice)), **more}
    return Tune.model_validate(given).model_dump(mode="json")


@pytest.fixture
def parts(tiny_models, monkeypatch):
    """A function to a pruned tiny model, its rows, their collate and its masks, by default 2:4 in every layer."""
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")

    def make(family="llama", name="masked", pattern=None):
        model, processor = tiny_models.tiny(family)
        generator, keeps = torch.Generator().manual_seed(0), {}
        for linear in (linear for block in models.blocks(model) for linear in block.linears):
            scores = torch.rand(linear.module.weight.shape, generator=generator)
            of = pattern or ("unstructured:group=row" if name in MOVING else "2:4")
            keeps[linear.name] = rooms.bind("pattern", of)(scores, 0.5)
        keep.apply(model, keeps)
        (batch,) = tiny_models.batches(family, processor, size=6)
        rows = [{name: value[at] for name, value in batch.items()} for at in range(6)]
        return model, rows, torch.utils.data.default_collate, keeps

    return make


def fit(parts, name, folder, end=attach.merge, given=(), **more):
    """Tunes to the end; returns the model and the masks that it ends with."""
    model, rows, collate, keeps = parts
    run = session.fit(model, rows, collate, options(name, given, **more), folder, keeps=keeps, end=end)
    while True:
        try:
            next(run)
        except StopIteration as stopped:
            return model, stopped.value[2]


def mask_of(module):
    """Returns the mask [out, in] that an attached layer has."""
    return Bits(module.keep, module.in_features)[:]


def merged(model, layer, name, text):
    """Returns what a layer's weight would be if training ended here."""
    module = model.get_submodule(layer)
    own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    with torch.no_grad():
        return rooms.bind("method", text, "merge")(module.weight, mask_of(module), own)


def same(one, other):
    """Says whether two mappings of tensors are equal bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", NAMES)
def test_every_method_says_in_a_line_what_it_is(name):
    summary = ROOM.method(name).summary
    assert summary.endswith(".") and len(summary) < 110


@pytest.mark.parametrize("name", NAMES)
def test_what_a_file_says_of_its_options_is_of_options_that_it_has(name):
    method = ROOM.method(name)
    only = method.constants.get("ONLY_WITH", {})
    named = {*only, *(other for others in only.values() for other in others), *method.constants.get("RAMPS", ())}
    assert named <= method.options.keys()


IDLE = [
    ("lors:init=kaiming", {"samples": 9, "gamma": 7.0}),
    ("seft:reactivate=false", {"score": "magnitude", "sensitivity": "last", "prune": "end", "exempt": False}),
    ("seft:score=magnitude", {"sensitivity": "last"}),
    ("seft:prune=end", {"exempt": False}),
    ("seft:rank=4", {"density": 0.5}),
    ("spiel:rank=4", {"density": 0.5}),
    ("sparse_peft:scaled=false", {"alpha": 3.0}),
    ("losa", {"mean": 3.0, "growth": 2.0, "budget": "exact"}),
]


@pytest.mark.parametrize(("text", "option", "value"), [(t, o, v) for t, more in IDLE for o, v in more.items()])
def test_an_option_that_nothing_looks_at_is_refused_unless_it_has_its_default(text, option, value):
    choice = rooms.parse(text)
    default = ROOM.method(choice.name).options[option].default
    silent = rooms.Choice(choice.name, {**choice.options, option: default})
    assert str(rooms.resolve("method", silent)) == options(choice.name, method=str(silent))["method"]
    with pytest.raises(ValidationError, match=f"looks? at {option}"):
        options(choice.name, method=str(rooms.Choice(choice.name, {**choice.options, option: value})))


@pytest.mark.parametrize(("family", "name"), CASES)
def test_the_zeros_stay_in_every_step_and_a_resumed_run_is_the_same(parts, tmp_path, family, name):
    model, rows, collate, keeps = parts(family, name)
    text = options(name)["method"]
    given = {layer: mask.clone() for layer, mask in keeps.items()}
    most = rooms.bind("method", text, "budget") if "budget" in ROOM.method(name).verbs else torch.sum
    budget = {layer: int(most(mask)) for layer, mask in keeps.items()}

    def check(masks):
        assert all(int(mask.sum()) <= budget[layer] for layer, mask in masks.items())
        assert name in MOVING or same(masks, given), "a mask was given and another is there"

    run = session.fit(model, rows, collate, options(name), tmp_path / "cut", keeps=keeps)
    for _ in range(3):
        next(run)
        masks = {layer: mask_of(model.get_submodule(layer)) for layer in keeps}
        check(masks)
        keep.verify(model, masks)
        if name in FROZEN:
            weights = {layer: merged(model, layer, name, text) for layer in masks}
            assert not any(weights[layer][~mask].any() for layer, mask in masks.items())
    run.close()
    assert checkpoint.newest(tmp_path / "cut").name.startswith("step-00000003")
    resumed, after = fit(parts(family, name), name, tmp_path / "cut")
    whole, masks = fit(parts(family, name), name, tmp_path / "whole")
    assert same(whole.state_dict(), resumed.state_dict()) and same(masks, after)
    assert not same(whole.state_dict(), parts(family, name)[0].state_dict()), "nothing was learned"
    check(masks)
    if name in MERGING:
        keep.verify(whole, masks)


@pytest.mark.parametrize("name", NM)
def test_a_mask_stays_two_of_four_in_every_step_and_at_the_end(parts, tmp_path, name):
    end = attach.merge if name in MERGING else attach.leave  # what does not merge lies beside the model
    more, text = FIXED.get(name, {}), options(name, FIXED.get(name, {}))["method"]
    model, rows, collate, keeps = parts("llama", name, "2:4")
    run = session.fit(model, rows, collate, options(name, more), tmp_path, keeps=keeps, end=end)
    for _ in run:
        weights = [model.get_submodule(layer).weight for layer in keeps]
        if name in FROZEN:
            weights += [merged(model, layer, name, text) for layer in keeps]
        assert all(_at_most(weight, 2, 4) for weight in weights)
    for layer, mask in keeps.items():
        weight = model.get_submodule(layer).weight
        assert _at_most(weight, 2, 4) and not weight[~mask].any(), layer


def _at_most(weight, n, m):
    """Whether every group of m inputs has at most n weights."""
    return int((weight.unflatten(1, (-1, m)) != 0).sum(-1).max()) <= n


@pytest.mark.parametrize("name", DRAWING)
def test_what_is_drawn_in_a_run_follows_its_seed_also_after_a_resume(parts, tmp_path, name):
    whole, _ = fit(parts("llama", name), name, tmp_path / "whole", given=RANDOM)
    again, _ = fit(parts("llama", name), name, tmp_path / "again", given=RANDOM)
    assert same(whole.state_dict(), again.state_dict())
    model, rows, collate, keeps = parts("llama", name)
    run = session.fit(model, rows, collate, options(name, RANDOM), tmp_path / "cut", keeps=keeps)
    for _ in range(3):
        next(run)
    run.close()
    assert checkpoint.newest(tmp_path / "cut").name.startswith("step-00000003")
    resumed, _ = fit(parts("llama", name), name, tmp_path / "cut", given=RANDOM)
    assert same(whole.state_dict(), resumed.state_dict())
    other, _ = fit(parts("llama", name), name, tmp_path / "other", given=RANDOM, seed=7)
    assert not same(whole.state_dict(), other.state_dict())
    for option in RANDOM.keys() & ROOM.method(name).options.keys():
        plain = {key: value for key, value in RANDOM.items() if key != option}
        apart, _ = fit(parts("llama", name), name, tmp_path / option, given=plain)
        assert not same(whole.state_dict(), apart.state_dict()), f"{option} draws nothing"


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
