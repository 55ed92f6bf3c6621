"""What every file of the format room must keep; a new file is picked up by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.inference import formats
from harness.inference.formats import Packed, slot
from harness.inference.kernels.linear import matmul
from harness.inference.values import PRECISIONS, decode, encode
from harness.problems import Problem
from harness.rooms import ROOMS, bind

NAMES = ROOMS["format"].names()
SLOTS = tuple(f"slot:slots={slots}" for slots in slot.SLOTS)
CHOICES = (*(name for name in NAMES if name not in ("nm", "slot")), *SLOTS)


@st.composite
def matrices(draw):
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 200))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    weight = torch.randn(rows, columns, generator=generator)
    weight *= torch.rand(rows, columns, generator=generator) >= draw(st.sampled_from([0, 0.3, 0.5, 0.75, 0.9, 1]))
    if draw(st.booleans()):
        weight[draw(st.integers(0, rows - 1))] = 0
    return weight


@given(matrices(), st.sampled_from(CHOICES), st.sampled_from(list(PRECISIONS)))
def test_unpacking_gives_back_every_byte(weight, name, precision):
    packed = formats.pack(weight, name, precision)
    back = formats.unpack(packed)
    expected = decode(*encode(weight, precision))
    assert back.dtype == torch.float32 and back.shape == weight.shape
    assert torch.equal(back, expected)
    if precision == "fp32":
        assert torch.equal(back, weight)


@pytest.mark.parametrize("n, m", [(2, 4), (4, 8), (1, 4), (4, 16), (8, 16), (1, 2)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_patterns_are_held_without_a_tail(n, m, precision):
    chance = torch.rand(21, 48, generator=torch.Generator().manual_seed(n)).view(21, -1, m)
    weight = torch.where(chance.argsort(2).argsort(2) < n, chance + 0.5, 0.0).view(21, 48)
    packed = formats.pack(weight, f"{n}:{m}", precision)
    assert len(packed.tensors["values"]) == 0
    assert torch.equal(formats.unpack(packed), decode(*encode(weight, precision)))


def test_a_broken_pattern_is_named():
    weight = torch.zeros(3, 16)
    weight[1, 4:7] = 1
    with pytest.raises(Problem, match="row 1 has 3 weights in columns 4 to 7"):
        formats.pack(weight, "2:4")


@pytest.mark.parametrize("pattern, per_weight", [("1:8", 3), ("3:16", 4.5), ("1:4", 6), ("3:8", 9), ("7:16", 12)])
def test_patterns_take_as_many_slots_as_they_fill(pattern, per_weight):
    """16 x the bytes that tiles take for a weight of the matrix: a byte and a half a slot, of 16 columns."""
    n, m = map(int, pattern.split(":"))
    weight = (torch.arange(256) % m < n).float().expand(8, 256)
    packed = formats.pack(weight, pattern, "int8")
    assert packed.tensors["tiles"].nbytes / weight.numel() * 16 == per_weight
    assert torch.equal(formats.unpack(packed), weight) and not len(packed.tensors["values"])


@pytest.mark.parametrize("n, m", [(3, 4), (2, 5), (16, 32)])
def test_patterns_that_fit_no_tile_are_refused(n, m):
    with pytest.raises(Problem, match="does not fit tiles"):
        formats.pack(torch.zeros(4, 32), f"{n}:{m}")


def test_bytes_at_75_percent():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(256, 4096, generator=generator) * (torch.rand(256, 4096, generator=generator) >= 0.75)
    per_eight = {name: formats.pack(weight, name, "int8").bytes / weight.numel() * 8 for name in CHOICES}
    slots = dict(zip(SLOTS, (4.6, 4.15, 4.0, 4.2, 4.7, 6), strict=True))
    assert per_eight == pytest.approx({"dense": 8, "bitmask": 3, "index": 6, **slots}, rel=0.03)


@pytest.mark.parametrize("name", [name for name in CHOICES if name not in ("dense", "bitmask")])
def test_columns_beyond_16_bits_are_refused(name):
    weight = torch.zeros(1, 65537)
    weight[0, -1] = 1
    with pytest.raises(Problem, match="16-bit"):
        formats.pack(weight, name)
    formats.unpack(formats.pack(weight[:, 1:], name))
    assert formats.unpack(formats.pack(weight))[0, -1] == 1


def test_groups_only_where_the_format_has_them():
    weight = torch.randn(4, 256)
    for name in ("dense", "bitmask"):
        packed = formats.pack(weight, name, "int8", group=64)
        assert packed.tensors["scales"].shape == packed.tensors["sums"].shape == (4, 4)
        assert torch.equal(formats.unpack(packed), decode(*encode(weight, "int8", group=64)))
    for name in ("index", "slot"):
        with pytest.raises(Problem, match="one scale a row"):
            formats.pack(weight, name, "int8", group=64)


def test_unknown_names_are_problems():
    with pytest.raises(Problem, match="did you mean 'bitmask'"):
        formats.pack(torch.ones(2, 2), "bitmaks")
    with pytest.raises(Problem, match="unknown precision"):
        formats.pack(torch.ones(2, 2), "bitmask", "int7")
    with pytest.raises(Problem, match="slots"):
        formats.pack(torch.ones(2, 2), "slot:slots=7")


def test_cast_tensors_are_refused():
    packed = formats.pack(torch.randn(4, 64), "bitmask")
    cast = Packed(packed.format, packed.precision, packed.shape, {k: v.half() for k, v in packed.tensors.items()})
    with pytest.raises(Problem, match="cannot be cast"):
        formats.unpack(cast)


@pytest.mark.parametrize("name", NAMES)
def test_a_format_is_one_file_with_its_sizes(name):
    assert ROOMS["format"].method(name).verbs == ("pack", "unpack", "sizes")
    codes = torch.tensor([[1.0, 0, 0, 2]]).repeat(9, 5)
    packed = formats.pack(codes, name)
    stored = int(packed.tensors["rows"][-1]) if "rows" in packed.tensors else 0
    found = bind("format", name, "sizes")(packed.shape, 4, stored)
    assert found == {name: tuple(packed.tensors[name].shape) for name in packed.tensors if name != "rows"}


def changed(packed, **tensors):
    return Packed(packed.format, packed.precision, packed.shape, {**packed.tensors, **tensors})


@given(matrices(), st.sampled_from(CHOICES), st.sampled_from(list(PRECISIONS)), st.data())
def test_a_tensor_of_another_size_is_named_with_both_shapes(weight, name, precision, data):
    packed = formats.pack(weight, name, precision)
    formats.check(packed)
    wrong = data.draw(st.sampled_from(sorted(packed.tensors)))
    tensor = packed.tensors[wrong]
    axis = data.draw(st.integers(0, tensor.ndim - 1))
    more = torch.cat([tensor, tensor.narrow(axis, 0, 1) if tensor.shape[axis] else tensor.new_zeros(1)], axis)
    less = tensor.narrow(axis, 0, max(tensor.shape[axis] - 1, 0))
    for other in (more, *([less] if less.numel() < tensor.numel() else [])):
        with pytest.raises(Problem) as caught:
            formats.check(changed(packed, **{wrong: other}), "model.safetensors: layer")
        found = f"the tensor {wrong} should be {list(tensor.shape)}, not {list(other.shape)}"
        grouped = wrong in ("scales", "sums") and axis == 1  # either of the two may be the one that is wrong
        assert caught.value.what == found or grouped
        assert caught.value.where == "model.safetensors: layer" and caught.value.hint


@pytest.mark.parametrize("choice", ["bitmask", "index", "slot:slots=4"])
def test_another_matrix_of_the_same_shape_is_found(choice):
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(16, 64, generator=generator) for _ in range(2))
    one[:, ::2], other[3] = 0, 0
    one, other = formats.pack(one, choice), formats.pack(other, choice)
    with pytest.raises(Problem, match=r"the tensor (values|columns) should be"):
        formats.unpack(changed(one, rows=other.tensors["rows"]))
    rows = one.tensors["rows"].clone()
    rows[3] = 10**6
    with pytest.raises(Problem, match="rows does not ascend from 0"):
        matmul(changed(one, rows=rows), torch.ones(1, 64))


@pytest.mark.parametrize("choice", ["index", "slot", "2:4"])
def test_rows_that_no_kernel_reads_whole_are_found(choice):
    rows = torch.tensor([0, 3])
    some = {"rows": rows, "columns": torch.zeros(3, dtype=torch.uint16), "values": torch.zeros(3)}
    packed = formats.pack(torch.zeros(1, 64), choice)
    with pytest.raises(Problem, match="no multiple of 8"):
        formats.check(changed(packed, **some))


def test_as_many_groups_as_their_size_gives():
    packed = formats.pack(torch.randn(4, 200), "dense", "int8", group=64)
    formats.check(packed)
    three = {name: packed.tensors[name][:, :3].contiguous() for name in ("scales", "sums")}
    with pytest.raises(Problem, match=r"the tensor sums should be \[4, 1\], not \[4, 3\]"):
        formats.check(changed(packed, **three))
