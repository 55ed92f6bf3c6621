from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.problems import Problem
from harness.quantization import codes
from harness.quantization.activations import Dynamic, Static
from harness.quantization.codes import Coded
from harness.quantization.grid import spread

INPUTS = [None, Dynamic(), Static(0.125, -7)]


@pytest.fixture
def layers():
    """A model of three linears that lie on their grids, and their codes."""
    torch.manual_seed(0)
    model, found = nn.Sequential(*(nn.Linear(16, 8) for _ in INPUTS)), {}
    with torch.no_grad():
        for index, each in enumerate(INPUTS):
            weight = model[index].weight
            weight[:, :5] = 0
            grid = spread(weight, 8 - index, symmetric=index != 1, group=[None, 8, 4][index])
            found[str(index)] = Coded(grid.encode(weight), grid, each)
            weight.copy_(grid.decode(found[str(index)].codes))
    return model, found


def test_what_is_saved_is_read_again(tmp_path, layers):
    model, saved = layers
    codes.save(tmp_path, saved)
    read = codes.load(tmp_path)
    assert list(read) == list(saved)
    for name, one in saved.items():
        other = read[name]
        assert other.input == one.input and (other.grid.bits, other.grid.group) == (one.grid.bits, one.grid.group)
        assert torch.equal(other.codes, one.codes) and other.codes.dtype == torch.int8
        assert torch.equal(other.grid.scale, one.grid.scale) and torch.equal(other.grid.zero, one.grid.zero)
        assert torch.equal(other.grid.decode(other.codes), model.get_submodule(name).weight)
    codes.verify(model, read)
    assert saved["2"].bytes == 8 * 16 * 6 / 8 + 4 * 8 * 4


def test_the_same_codes_give_the_same_bytes(tmp_path, layers):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        codes.save(tmp_path / name, layers[1])
    assert (tmp_path / "a" / codes.FILE).read_bytes() == (tmp_path / "b" / codes.FILE).read_bytes()


def test_weights_that_are_not_what_the_codes_say_are_a_problem(layers):
    model, saved = layers
    with torch.no_grad():
        model[1].weight[3, 7] += 1e-6
    with pytest.raises(Problem, match="1: 1 of its 128 weights are not what codes and scales say"):
        codes.verify(model, saved)


def test_codes_of_too_many_bits_or_of_another_layer_are_problems(layers):
    model, saved = layers
    saved["2"].codes[0, 0] = 32
    with pytest.raises(Problem, match=r"2: codes from .* to 32 are not of 6 bits"):
        codes.verify(model, saved)
    with pytest.raises(Problem, match=r"5: codes \(8, 16\) on weight None"):
        codes.verify(model, {"5": saved["0"]})


def test_in_another_dtype_the_weights_are_the_rounded_values(layers):
    model, saved = layers
    codes.verify(model.bfloat16(), saved)


def test_no_file_and_a_damaged_file_are_problems(tmp_path, layers):
    with pytest.raises(Problem, match="there are no codes here"):
        codes.load(tmp_path)
    (tmp_path / codes.FILE).write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(Problem, match="these codes are damaged"):
        codes.load(tmp_path)
