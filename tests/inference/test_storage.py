from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import exported
from harness.inference import formats, storage
from harness.problems import Problem


@pytest.fixture
def layers():
    torch.manual_seed(0)
    weight = torch.randn(24, 70) * (torch.rand(24, 70) >= 0.6)
    names = ("dense", "bitmask", "index", "slot", "slot:slots=8")
    kinds = ("fp32", "bf16", "fp16", "int8")
    return {f"model.{name}.{kind}": formats.pack(weight, name, kind) for name in names for kind in kinds}


def test_a_model_comes_back_byte_for_byte(layers, tmp_path):
    layers["empty"] = formats.pack(torch.zeros(3, 5))
    storage.save(tmp_path / storage.FILE, layers)
    back = storage.load(tmp_path / storage.FILE)
    assert set(back) == set(layers)
    for name, packed in layers.items():
        found = back[name]
        assert (found.format, found.precision, found.shape) == (packed.format, packed.precision, packed.shape)
        assert list(found.tensors) == list(packed.tensors)
        for key, tensor in packed.tensors.items():
            assert found.tensors[key].dtype == tensor.dtype and torch.equal(found.tensors[key], tensor)
        assert torch.equal(formats.unpack(found), formats.unpack(packed))
    first = (tmp_path / storage.FILE).read_bytes()
    storage.save(tmp_path / "again", back)
    assert (tmp_path / "again").read_bytes() == first


def test_one_changed_bit_is_found(layers, tmp_path):
    path = tmp_path / storage.FILE
    storage.save(path, layers)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Problem, match="damaged packed weights: its content is not what was written"):
        storage.load(path)
    storage.load(path, exported.content(path))


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_cut_file_is_found(layers, tmp_path, kept):
    path = tmp_path / storage.FILE
    storage.save(path, layers)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Problem, match="damaged packed weights"):
        storage.load(path)


def test_another_version_and_no_file(tmp_path):
    path = tmp_path / storage.FILE
    with pytest.raises(Problem, match="no packed weights here"):
        storage.load(path)
    save_file({"a": torch.ones(1)}, path, {"packed": '{"version": 99}'})
    with pytest.raises(Problem, match="version 99; this harness reads version 2"):
        storage.load(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(Problem, match="version none"):
        storage.load(path)


@pytest.mark.parametrize("said", ["[1]", "1", "null", "{"])
def test_a_description_that_is_none_is_damage(said, tmp_path):
    path = tmp_path / storage.FILE
    save_file({"a": torch.ones(1)}, path, {"packed": said})
    with pytest.raises(Problem, match="damaged packed weights"):
        storage.load(path)


def test_an_unknown_format_names_the_layer(layers, tmp_path):
    path = tmp_path / storage.FILE
    storage.save(path, {"a.b": next(iter(layers.values()))})
    tensors = load_file(path)
    layers = {"a.b": {"format": "slott", "precision": "fp32", "shape": [24, 70]}}
    said = {"version": storage.VERSION, "layers": layers, "sha256": storage._digest(layers, tensors)}
    save_file(tensors, path, {"packed": json.dumps(said)})
    with pytest.raises(Problem, match=r"a\.b: unknown format 'slott'(.|\n)*did you mean 'slot'"):
        storage.load(path)
