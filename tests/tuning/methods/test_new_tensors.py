"""The room's contract beyond `masked`: a file that trains two new tensors a layer and adapts its forward."""

from __future__ import annotations

import sys

import pytest
import torch

from harness import models, rooms
from harness.problems import Problem
from harness.pruning import keep
from harness.tuning import attach, checkpoint, methods, session

OPTIONS = {
    "data": "prose",
    "steps": 5,
    "lr": 2e-3,
    "warmup": 1,
    "schedule": "linear",
    "batch_size": 4,
    "accumulation": 2,
    "weight_decay": 0.01,
    "betas": [0.9, 0.95],
    "clip": 1.0,
    "precision": "fp32",
    "recompute": False,
    "seed": 3,
    "checkpoint_every": 3,
    "method": "low_rank:rank=3",
    "loss": "cross_entropy + squarehead",
}
LOW_RANK = """
import torch
from torch.nn.functional import linear


def prepare(weight, keep, *, rank: int = 2):
    "A low-rank update, masked: (weight + (b @ a) * keep) @ x."
    return {"a": torch.randn(rank, weight.shape[1]) * 0.1, "b": torch.zeros(weight.shape[0], rank)}


def adapt(x, weight, keep, trained):
    return linear(x, merge(weight, keep[:], trained))


def merge(weight, keep, trained):
    return weight + (trained["b"] @ trained["a"]) * keep
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A function that puts a file into the room of methods."""

    folder, own = tmp_path / "room", rooms.ROOMS["method"].folder
    folder.mkdir()

    def file(package, of, name, found=rooms._file):
        return found(folder.parent, folder.name, name) if of == own else found(package, of, name)

    monkeypatch.setattr(rooms, "_file", file)
    monkeypatch.setattr(methods, "__path__", [str(folder)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield lambda name, text: (folder / f"{name}.py").write_text(text)
    for path in folder.glob("*.py"):
        sys.modules.pop(f"{methods.__name__}.{path.stem}", None)


@pytest.fixture
def parts(run_parts, place):
    """A function to fresh parts of a run with the low-rank method."""
    place("low_rank", LOW_RANK)

    def make(family="llama"):
        given, named = run_parts(family, OPTIONS)
        keep.apply(given[0], named["keeps"])
        return given, named

    return make


def finish(run):
    """Runs a session to its end; returns what it returned."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            return end.value


def same(a, b) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def merged(layer: attach.Layer) -> torch.Tensor:
    return layer.module.weight + (layer.trained["b"] @ layer.trained["a"]) * layer.keep[:]


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_its_zeros_stay_after_every_step_and_only_its_tensors_move_in_the_layers(parts, tmp_path, family, monkeypatch):
    given, named = parts(family)
    model, keeps = given[0], named["keeps"]
    before = {name: model.get_submodule(name).weight.clone() for name in keeps}
    held = []
    take = attach.attach
    monkeypatch.setattr(attach, "attach", lambda *a: held.append(take(*a)) or held[0])
    for _ in session.fit(*given, tmp_path, **named):
        for name, layer in held[0].layers.items():
            assert set(layer.trained) == {"a", "b"} and layer.trained["a"].shape[0] == 3
            assert torch.equal(layer.module.weight, before[name]) and layer.module.weight.grad is None
            assert not merged(layer)[~keeps[name]].any()
    keep.verify(model, keeps)
    assert all(not torch.equal(model.get_submodule(name).weight, weight) for name, weight in before.items())


def test_merged_layers_compute_the_same_and_are_plain_again(tiny, masks, parts, batches, tmp_path):
    plain, model = tiny("t5"), tiny("t5")
    keeps = masks(model)
    keep.apply(model, keeps)
    attached = attach.attach(model, keeps, "low_rank")
    assert not any(model.get_submodule(name).weight.requires_grad for name in keeps)
    with torch.no_grad():
        for layer in attached.layers.values():
            layer.trained["b"].normal_()
        unmerged = model(**batches["t5"]()).logits
        attach.merge(attached)
        assert torch.equal(model(**batches["t5"]()).logits, unmerged)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(p.requires_grad for p in model.parameters())
    assert not any("forward" in vars(module) for module in model.modules())
    model.save_pretrained(tmp_path / "model")
    assert same(models.load(tmp_path / "model"), model)


def test_a_bias_is_added_by_the_layer(place):
    place("low_rank", LOW_RANK)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    x = torch.randn(2, 4)
    expected = model(x)
    attach.attach(model, {"0": torch.ones(3, 4, dtype=torch.bool)}, "low_rank")
    assert torch.allclose(model(x), expected)


def test_a_closed_run_goes_on_to_the_same_bits(parts, tmp_path):
    given, named = parts()
    whole = given[0]
    curve, summary, _ = finish(session.fit(*given, tmp_path / "whole", **named))
    given, named = parts()
    run = session.fit(*given, tmp_path / "cut", **named)
    next(run), next(run)
    run.close()
    assert any(name.endswith(".a") for name in torch.load(checkpoint.newest(tmp_path / "cut"))["model"])
    given, named = parts()
    resumed, _, _ = finish(session.fit(*given, tmp_path / "cut", **named))
    assert same(whole, given[0]) and resumed == curve
    frozen = sum(mask.numel() for mask in named["keeps"].values())
    assert summary["trained_parameters"] == summary["parameters"] - frozen


@pytest.mark.parametrize(
    "change, why",
    [(("def adapt", "def adopt"), "trains 'a', but has no adapt"), (('{"a"', '{"bias"'), "'bias', but its layer has")],
)
def test_a_tensor_that_would_be_lost_is_refused(place, change, why):
    place("low_rank", LOW_RANK.replace(*change))
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    with pytest.raises(Problem, match=why):
        attach.attach(model, {"0": torch.ones(3, 4, dtype=torch.bool)}, "low_rank")
