from __future__ import annotations

import copy

import torch
from torch import nn

from harness.inference import grids
from harness.quantization.grid import spread


def model():
    made = nn.ModuleDict({name: nn.Linear(128, 8) for name in "qkv"} | {"head": nn.Linear(128, 8)})
    made["head"].weight = made["q"].weight
    return made


def test_layers_that_are_tied_share_a_grid_and_a_copy_has_it_too():
    given = model()
    own = {"q": spread(given["q"].weight.detach(), 8)}
    grids.attach(given, own)
    assert grids.joined([given["q"]]) is not None and grids.joined([given["k"]]) is None
    assert given["head"].grid is given["q"].grid is own["q"]
    assert torch.equal(copy.deepcopy(given)["q"].grid.scale, own["q"].scale)


def test_grids_lie_one_below_the_other():
    given = model()
    own = {name: spread(given[name].weight.detach(), 8, group=64) for name in "qk"}
    grids.attach(given, own)
    found = grids.joined([given["q"], given["k"]])
    assert torch.equal(found.scale, torch.cat([own["q"].scale, own["k"].scale])) and found.group == 64
    assert found.zero.shape == found.scale.shape == (16, 2)


def test_only_grids_with_the_same_groups_are_joined():
    given = model()
    grids.attach(given, {name: spread(given[name].weight.detach(), 8, group=64) for name in "qv"})
    assert grids.alike(given, "qkv") == [("q", "v"), ("k",)]
    given["v"].grid = spread(given["v"].weight.detach(), 8)
    assert grids.alike(given, "qkv") == [("q",), ("k",), ("v",)]
