from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from harness.problems import Problem
from harness.pruning import keep


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 4))


@pytest.fixture
def keeps():
    generator = torch.Generator().manual_seed(0)
    return {"0": torch.rand(3, 5, generator=generator) < 0.5, "2": torch.rand(4, 3, generator=generator) < 0.3}


def test_apply_then_verify(model, keeps):
    before = model[0].weight.detach().clone()
    keep.apply(model, keeps)
    keep.verify(model, keeps)
    assert torch.equal(model[0].weight, before * keeps["0"])


def test_verify_names_the_layer_and_counts(model, keeps):
    keep.apply(model, keeps)
    with torch.no_grad():
        model[2].weight[~keeps["2"]] = torch.cat([torch.ones(2), torch.zeros(int((~keeps["2"]).sum()) - 2)])
    with pytest.raises(Problem, match=r"2: 2 of \d+ pruned weights are not zero"):
        keep.verify(model, keeps)


def test_nan_under_the_mask_is_no_zero(model, keeps):
    keep.apply(model, keeps)
    with torch.no_grad():
        model[0].weight[~keeps["0"]] = float("nan")
    with pytest.raises(Problem, match="not zero"):
        keep.verify(model, keeps)


def test_a_missing_layer_and_a_wrong_shape_are_named(model, keeps):
    with pytest.raises(Problem, match="unknown layer 'head'"):
        keep.apply(model, {"head": keeps["0"]})
    with pytest.raises(Problem, match=r"2: mask \(3, 5\) on weight \(4, 3\)"):
        keep.verify(model, {"2": keeps["0"]})


def test_sparsity_is_over_all_weights():
    assert keep.sparsity({"a": torch.tensor([[True, False]]), "b": torch.tensor([[False] * 6])}) == 7 / 8


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 17), st.integers(0, 2**31))
def test_save_and_load(tmp_path_factory, rows, columns, seed):
    folder = tmp_path_factory.mktemp("mask")
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    keep.save(folder, {"x.y": mask, "z": ~mask})
    loaded = keep.load(folder)
    assert torch.equal(loaded["x.y"], mask) and torch.equal(loaded["z"], ~mask) and loaded["z"].dtype == torch.bool


def test_one_bit_a_weight(tmp_path):
    keep.save(tmp_path, {"layer": torch.ones(256, 256, dtype=torch.bool)})
    assert 8192 < (tmp_path / keep.FILE).stat().st_size < 8192 + 512


def test_masks_are_held_as_one_bit_a_weight(keeps):
    masks = keep.Masks(keeps)
    assert dict(masks).keys() == keeps.keys() and all(torch.equal(masks[name], keeps[name]) for name in keeps)
    assert sum(packed.numel() for packed in masks._packed.values()) == 2 + 2
    masks["0"] = ~keeps["0"]
    assert torch.equal(masks["0"], ~keeps["0"]) and keep.sparsity({"0": masks["0"]}) == keep.sparsity(
        {"0": ~keeps["0"]}
    )
    del masks["2"]
    assert list(masks) == ["0"] and len(masks) == 1


def test_no_mask_is_a_problem(tmp_path):
    with pytest.raises(Problem, match="no mask"):
        keep.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "short", "type", "shape", "list"])
def test_a_damaged_mask_is_a_problem(tmp_path, keeps, damage):
    keep.save(tmp_path, keeps)
    path = tmp_path / keep.FILE
    if damage == "other":
        save_file({"x": torch.zeros(3)}, path)
    elif damage in ("short", "type", "shape", "list"):
        packed = torch.zeros(2) if damage == "type" else torch.zeros(2 - (damage == "short"), dtype=torch.uint8)
        shapes = {"shape": {"0": [-3, -5]}, "list": [1]}.get(damage, {"0": [3, 5]})
        save_file({"0": packed}, path, {"shapes": json.dumps(shapes)})
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "cut" else b"")
    with pytest.raises(Problem, match="this mask is damaged") as caught:
        keep.load(tmp_path)
    assert caught.value.where == str(path)


@pytest.fixture
def written(tmp_path, model, keeps):
    keep.apply(model, keeps)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return tmp_path


def test_written_files_are_verified(written, keeps):
    keep.verify_written(written, keeps)


def test_a_written_weight_that_is_not_zero_is_found(written, model, keeps):
    with torch.no_grad():
        model[2].weight[~keeps["2"]] = float("nan")
    save_file(model.state_dict(), written / "model.safetensors")
    with pytest.raises(Problem, match=r"2: \d+ of \d+ pruned weights are not zero"):
        keep.verify_written(written, keeps)


def test_a_layer_that_was_not_written_is_found(written, keeps):
    with pytest.raises(Problem, match="1: this pruned layer is not in the written files"):
        keep.verify_written(written, {**keeps, "1": keeps["0"]})


def test_every_shard_is_verified(tmp_path, model, keeps):
    keep.apply(model, keeps)
    names = {name: f"model-{name[0]}.safetensors" for name in model.state_dict()}
    for file in set(names.values()):
        save_file({n: v for n, v in model.state_dict().items() if names[n] == file}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    keep.verify_written(tmp_path, keeps)
