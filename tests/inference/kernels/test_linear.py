from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from harness.inference import formats
from harness.inference.formats import slot
from harness.inference.kernels import build, isa, library, linear
from harness.inference.kernels.linear import PackedLinear, matmul
from harness.inference.values import PRECISIONS
from harness.problems import Problem
from harness.quantization.grid import Grid

BUILDS = [name for name in isa.FEATURES if isa.has(name)]
SLOTS = tuple(f"slot:slots={slots}" for slots in slot.SLOTS)
FORMATS = ("dense", "bitmask", "index", *SLOTS, "2:4")

pytestmark = pytest.mark.skipif(build.reason() is not None, reason=str(build.reason()))


def bound(x, weight, precision, bits=14):
    """How far a product may be off: the rounding of fp32 sums, and with int8 that of activations."""
    step = 1 / (2**bits - 2) if precision == "int8" else 0
    largest, magnitude = x.abs().amax(1, keepdim=True).double(), weight.abs().sum(1).double()
    return largest * magnitude * (step + 4e-7) + 1e-6


def sparse(rows, columns, sparsity, seed, pattern=False):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    chance = torch.rand(rows, columns, generator=generator)
    if pattern:
        groups = nn.functional.pad(chance, (0, -columns % 4)).view(rows, -1, 4)
        return weight * (groups.argsort(2).argsort(2) >= 2).view(rows, -1)[:, :columns]
    return weight * (chance >= sparsity)


@given(st.data())
@settings(max_examples=150)
def test_products_are_those_of_float64(data):
    draw = data.draw
    name, precision = draw(st.sampled_from(FORMATS)), draw(st.sampled_from(list(PRECISIONS)))
    rows, columns = draw(st.integers(1, 70)), draw(st.integers(1, 300))
    sparsity = draw(st.sampled_from([0, 0.5, 0.75, 0.95, 1]))
    weight = sparse(rows, columns, sparsity, draw(st.integers(0, 999)), name == "2:4")
    weight[draw(st.integers(0, rows - 1))] = 0
    group = 64 if precision == "int8" and name in ("dense", "bitmask") and draw(st.booleans()) else 0
    packed = formats.pack(weight, name, precision, group=group)
    batch = draw(st.one_of(st.integers(1, 18), st.integers(19, 70)))
    x = torch.randn(batch, columns, generator=torch.Generator().manual_seed(1)) * 10 ** draw(st.integers(-3, 3))
    bias = torch.randn(rows) if draw(st.booleans()) else None
    bits = draw(st.sampled_from(linear.BITS)) if precision == "int8" else 14
    threads = torch.get_num_threads()
    torch.set_num_threads(draw(st.integers(1, 3)))
    try:
        with isa.limit(draw(st.sampled_from(BUILDS))):
            y = matmul(packed, x, bias, activations=bits)
    finally:
        torch.set_num_threads(threads)
    stored = formats.unpack(packed)
    expected = x.double() @ stored.double().T + (0 if bias is None else bias.double())
    assert y.dtype == torch.float32 and y.shape == (batch, rows)
    assert ((y - expected).abs() <= bound(x, stored, precision, bits)).all()


@given(st.data())
@settings(max_examples=150)
def test_activations_of_8_bits_are_rounded_alike_everywhere(data):
    draw = data.draw
    name, build_name = draw(st.sampled_from(FORMATS)), draw(st.sampled_from([*BUILDS, "torch"]))
    rows, columns = draw(st.integers(1, 70)), draw(st.integers(1, 300))
    batch = draw(st.one_of(st.integers(1, 20), st.sampled_from([33, 131])))
    weight = sparse(rows, columns, draw(st.sampled_from([0, 0.75, 0.95])), draw(st.integers(0, 999)), name == "2:4")
    packed, bias = formats.pack(weight, name, "int8"), torch.randn(rows)
    x = torch.randn(batch, columns, generator=torch.Generator().manual_seed(draw(st.integers(0, 999))))
    if draw(st.booleans()):  # ties between two levels
        x = (x * 20).round() / 2
        x[:, 0] = 127
    with pytest.MonkeyPatch.context() as patch:
        if build_name == "torch":
            patch.setattr(build, "reason", lambda: "there is no C++ compiler")
        with isa.limit(isa.best() if build_name == "torch" else build_name), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            y = matmul(packed, x, bias, activations=8)
    stored = formats.unpack(packed)
    expected = linear.rounded(x, 8).double() @ stored.double().T + bias.double()
    assert ((y - expected).abs() <= bound(x, stored, "fp32")).all()


def test_levels_are_the_nearest_and_of_a_tie_the_even():
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 0.49, -126.7]])
    assert linear.rounded(x, 8).tolist() == [[127, 0, 2, 2, 0, -2, 0, -127]]
    packed = formats.pack(torch.eye(8), "dense", "int8")
    torch.testing.assert_close(matmul(packed, x, activations=8), linear.rounded(x, 8))


@pytest.mark.parametrize("bits", linear.BITS)
@pytest.mark.parametrize("name", ("dense", "bitmask"))
def test_wide_layers_and_long_batches_of_bytes(name, bits):
    for columns, group in ((9000, 0), (9000, 4544), (200, 64)):
        packed = formats.pack(sparse(21, columns, 0.6, 1), name, "int8", group=group)
        stored = formats.unpack(packed)
        for batch in (1, 7, 9, 130, 261):
            x, bias = torch.rand(batch, columns) + 0.1, torch.randn(21)  # of one sign: sums grow as large as they can
            off = matmul(packed, x, bias, activations=bits) - (x.double() @ stored.double().T + bias.double())
            assert (off.abs() <= bound(x, stored, "int8", bits)).all()


@pytest.mark.parametrize("build_name", BUILDS)
@pytest.mark.parametrize("bits", linear.BITS)
@pytest.mark.parametrize("name", ("dense", "bitmask", *SLOTS, "index"))
def test_the_lowest_code_of_a_byte_is_multiplied_as_any_other(name, bits, build_name):
    codes = torch.full((5, 70), -128.0)
    own = Grid(torch.ones(5, 1), torch.zeros(5, 1), 8, 70)
    packed, x = formats.pack(codes, name, "int8", grid=own), torch.tensor([[-1.0, 1.0, 0.5, -0.25, -1.0] * 14])
    with isa.limit(build_name):
        torch.testing.assert_close(matmul(packed, x, activations=bits), x @ codes.T, rtol=1e-2, atol=0.5)


@pytest.mark.parametrize("build_name", BUILDS)
@pytest.mark.parametrize("bits", linear.BITS)
@pytest.mark.parametrize("name", SLOTS)
def test_slots_of_a_wide_layer_that_are_all_full(name, bits, build_name):
    """Weights and activations of one sign: sums grow as large as they can."""
    weight = torch.rand(9, 65000) + 0.1
    x = torch.rand(2, 65000) + 0.1
    packed = formats.pack(weight, name, "int8")
    stored = formats.unpack(packed)
    with isa.limit(build_name):
        off = matmul(packed, x, activations=bits) - x.double() @ stored.double().T
    assert (off.abs() <= bound(x, stored, "int8", bits)).all()


def test_other_numbers_of_bits_are_problems():
    packed = formats.pack(torch.randn(4, 32), "bitmask", "int8")
    with pytest.raises(Problem, match="activations of 7 bits"):
        matmul(packed, torch.randn(1, 32), activations=7)
    with pytest.raises(Problem, match="fp32 weights multiply activations as they are"):
        PackedLinear.from_linear(nn.Linear(32, 4), "bitmask", "fp32", activations=8)


@pytest.mark.parametrize("build_name", BUILDS)
@pytest.mark.parametrize("name", FORMATS)
def test_narrow_layers(name, build_name):
    with isa.limit(build_name):
        for columns in range(1, 41):
            weight = sparse(9, columns, 0.5, columns, name == "2:4")
            for precision in PRECISIONS:
                packed = formats.pack(weight, name, precision)
                x = torch.randn(2, columns)
                stored = formats.unpack(packed)
                off = (matmul(packed, x) - x.double() @ stored.double().T).abs()
                assert (off <= bound(x, stored, precision)).all()


@pytest.mark.parametrize("build_name", BUILDS)
@pytest.mark.parametrize("name", FORMATS)
def test_long_batches(name, build_name):
    weight, bias = sparse(300, 200, 0.6, 0, name == "2:4"), torch.randn(300)
    for precision in PRECISIONS:
        group = 64 if precision == "int8" and name in ("dense", "bitmask") else 0
        packed = formats.pack(weight, name, precision, group=group)
        stored = formats.unpack(packed)
        for batch in (17, 33, 128, 131, 3 * 64 + 16):
            x = torch.randn(batch, 200)
            with isa.limit(build_name):
                y = matmul(packed, x, bias)
            expected = nn.functional.linear(x.double(), stored.double(), bias.double())
            assert ((y - expected).abs() <= bound(x, stored, precision)).all()


@pytest.mark.parametrize("build_name", BUILDS)
@pytest.mark.parametrize("name", ("dense", "bitmask"))
def test_panels_of_many_columns_and_rows_of_activations(name, build_name):
    """More columns than a panel has, more rows of activations than it is expanded for, and what is left of both."""
    weight, bias = sparse(75, 1130, 0.4, 0), torch.randn(75)
    x = torch.randn(500, 1130)
    for precision, group in (("fp32", 0), ("bf16", 0), ("fp16", 0), ("int8", 0), ("int8", 384)):
        packed = formats.pack(weight, name, precision, group=group)
        stored = formats.unpack(packed)
        expected = nn.functional.linear(x.double(), stored.double(), bias.double())
        with isa.limit(build_name):
            ready = linear.make_ready(list(packed.tensors.values()), bias, packed.format, precision, 75, 1130, 14)
            for batch in (9, 16, 20, 37, 64, 240, 241, 500):
                y = torch.full((batch, 75), float("nan"))
                ready.multiply(ready.matrix, x.data_ptr(), y.data_ptr(), batch, 2)
                off = (y - expected[:batch]).abs()
                assert (off <= bound(x[:batch], stored, precision)).all()


@pytest.mark.parametrize("build_name", BUILDS)
@pytest.mark.parametrize("name", FORMATS)
def test_many_rows_are_multiplied_by_the_library_as_by_the_kernels(name, build_name, monkeypatch):
    """Of one block and of several, around the first number of rows that it is used for."""
    weight = sparse(70, 130, 0.6, 0, name == "2:4")
    weight[3] = 0
    for precision in PRECISIONS:
        group = 64 if precision == "int8" and name in ("dense", "bitmask") else 0
        packed = formats.pack(weight, name, precision, group=group)
        stored, tensors = formats.unpack(packed), list(packed.tensors.values())
        for bits, bias in ((14, torch.randn(70)), (14, None), *([(8, torch.randn(70))] if precision == "int8" else [])):
            with isa.limit(build_name):
                ready = linear.make_ready(tensors, bias, packed.format, precision, 70, 130, bits)
            for many in (ready.many - 1, ready.many) if ready.many < 2000 else (40,):
                x = torch.randn(2, many // 2 + many % 2, 130)[:, : many // 2 + 1]
                with isa.limit(build_name):
                    usual = matmul(packed, x, bias, activations=bits)
                given = linear.rounded(x, 8) if bits == 8 else x
                expected = nn.functional.linear(given, stored, bias)
                for rows in (512, 32):
                    monkeypatch.setattr(library, "BLOCK", 0)
                    monkeypatch.setattr(library, "BLOCK_ROWS", rows)
                    y = library.multiply(ready, given)
                    torch.testing.assert_close(y, expected, atol=1e-4, rtol=1e-5)
                off = (usual - expected).flatten(0, 1).abs()
                assert (off <= 2 * bound(x.flatten(0, 1), stored, precision, bits)).all()


def test_torch_multiplies_where_it_is_faster(monkeypatch):
    assert library.many("dense", "fp32", 4096, 4096, 1.0) == library.DECODE
    with isa.limit("portable"):
        assert library.many("slot", "int8", 4096, 4096, 0.25) == library.LONG
        assert library.many("bitmask", "fp32", 4096, 4096, 0.5) == library.DECODE + 1
    given = []
    monkeypatch.setattr(library, "multiply", lambda ready, x: given.append(len(x)) or torch.zeros(len(x), 64))
    packed = formats.pack(sparse(64, 64, 0.5, 0), "bitmask")
    many = library.many("bitmask", "fp32", 64, 64, 0.5)
    for rows in (many - 1, many):
        matmul(packed, torch.randn(rows, 64))
    assert given == [many]


@pytest.mark.parametrize("name", FORMATS)
def test_long_batches_of_narrow_layers(name):
    for rows, columns in ((1, 1), (9, 70), (17, 15), (8, 65)):
        packed = formats.pack(sparse(rows, columns, 0.5, rows, name == "2:4"), name, "int8")
        x, stored = torch.randn(2, 40, columns), formats.unpack(packed)
        off = (matmul(packed, x) - x.double() @ stored.double().T).flatten(0, 1).abs()
        assert (off <= bound(x.flatten(0, 1), stored, "int8")).all()


@pytest.mark.parametrize("rows", [3, 50])
def test_other_types_and_layouts(rows):
    weight = sparse(40, 96, 0.5, 0)
    packed = formats.pack(weight)
    x = torch.randn(96, rows).T
    assert not x.is_contiguous()
    torch.testing.assert_close(matmul(packed, x), x @ weight.T, atol=1e-4, rtol=1e-5)
    for dtype, off in ((torch.bfloat16, 0.2), (torch.float16, 0.05)):
        y = matmul(packed, x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), x @ weight.T, atol=off, rtol=0.02)


def test_leading_dimensions_and_an_empty_batch():
    packed = formats.pack(sparse(10, 32, 0.5, 0))
    assert matmul(packed, torch.randn(32)).shape == (10,)
    assert matmul(packed, torch.randn(2, 3, 32)).shape == (2, 3, 10)
    assert matmul(packed, torch.randn(0, 32)).shape == (0, 10)


@pytest.mark.parametrize("name", ("dense", "bitmask", "slot", "index"))
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(name, bad):
    x = torch.randn(2, 64)
    x[1, 5] = bad
    weight = torch.rand(8, 64) + 1
    for precision, bits in (("fp32", 14), ("int8", 14), ("int8", 8)):
        for many in (x, x.repeat(6, 1), x.repeat(20, 1)):
            y = matmul(formats.pack(weight, name, precision), many, activations=bits)
            assert torch.isfinite(y[::2]).all() and not torch.isfinite(y[1::2]).any()


@pytest.mark.parametrize("name", ("dense", "bitmask", "slot", "index"))
@pytest.mark.parametrize("size", [0, 1e-40, 1e-36, 1e30])
def test_activations_of_any_size_are_multiplied(name, size):
    x, packed = torch.linspace(-1, 1, 64)[None] * size, formats.pack(torch.rand(8, 64), name, "int8")
    expected = x.double() @ formats.unpack(packed).double().T
    for bits in linear.BITS:
        off = (matmul(packed, x, activations=bits) - expected).abs()
        assert (off <= 64 * max(size, 1e-30) * (1 / (2**bits - 2) + 4e-7)).all()


@pytest.mark.parametrize("name", ("dense", "bitmask", "slot", "index"))
def test_weights_may_move_between_calls(name):
    layer = PackedLinear.from_linear(nn.Linear(64, 16), name, "int8")
    x, before = torch.randn(3, 64), layer(torch.randn(3, 64))
    moved = copy.deepcopy(layer)
    for buffer in layer.buffers():
        buffer.copy_(torch.zeros_like(buffer) if buffer.is_floating_point() else buffer)
    assert before.shape == (3, 16) and not layer(x).any() and moved(x).any()
    layer.load_state_dict(moved.state_dict(), assign=True)
    assert torch.equal(layer(x), moved(x))


def test_threads_multiply_with_one_layer_at_once():
    layer = PackedLinear.from_linear(nn.Linear(300, 200), "bitmask", "fp32")
    given = [torch.randn(1 + seed % 5, 300) for seed in range(64)]
    expected = [layer(x) for x in given]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(layer, given * 4))
    assert all(map(torch.equal, found, expected * 4))


def test_weights_that_are_elsewhere_are_a_problem():
    layer = PackedLinear.from_linear(nn.Linear(64, 16)).to("meta")
    with pytest.raises(Problem, match="on the CPU"):
        layer(torch.randn(1, 64))


@pytest.mark.parametrize(
    "x, said",
    [
        (torch.randn(2, 31), r"\[\.\.\., 32\].*not float32 \[2, 31\]"),
        (torch.randn(2, 32).double(), "not float64"),
        (torch.ones(2, 32, dtype=torch.int64), "not int64"),
        (torch.randn(2, 32, device="meta"), "on meta"),
    ],
)
def test_wrong_activations_are_problems(x, said):
    with pytest.raises(Problem, match=said):
        matmul(formats.pack(torch.randn(4, 32)), x)


def test_no_gradient_is_a_problem_and_not_a_zero():
    packed = formats.pack(torch.randn(4, 32))
    x = torch.randn(2, 32, requires_grad=True)
    with pytest.raises(Problem, match="no gradient"):
        matmul(packed, x)
    with torch.no_grad():
        assert matmul(packed, x).shape == (2, 4)


def test_a_layer_takes_the_place_of_a_linear_one():
    dense = nn.Linear(48, 20)
    layer = PackedLinear.from_linear(dense, "slot:slots=8", "fp32")
    x = torch.randn(3, 48)
    torch.testing.assert_close(layer(x), dense(x).detach(), atol=1e-5, rtol=1e-5)
    assert (layer.in_features, layer.out_features) == (48, 20)
    assert set(layer.state_dict()) == {*layer.packed.tensors, "bias"}
    again = copy.deepcopy(layer)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x), layer(x))
    with pytest.raises(Problem, match="cannot be cast"):
        layer.bfloat16()


@pytest.mark.parametrize("name", ("bitmask", "slot", "index", "dense"))
def test_it_is_traced(name):
    model = nn.Sequential(PackedLinear.from_linear(nn.Linear(64, 32), name, "int8", activations=8), nn.ReLU())
    x = torch.randn(4, 64)
    with torch.no_grad():
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        assert "packed_linear" in str(exported.graph)
        torch.testing.assert_close(exported.module()(x), model(x))
        torch.testing.assert_close(exported.module()(x[:3]), model(x[:3]))
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))


def test_the_operator_keeps_torchs_rules():
    packed = formats.pack(torch.randn(8, 64), "bitmask", "int8")
    arguments = (torch.randn(2, 64), list(packed.tensors.values()), None, packed.format, packed.precision, 8, 64)
    torch.library.opcheck(linear.packed_linear, arguments, test_utils=("test_schema", "test_faketensor"))


def test_without_a_compiler_it_says_so_and_multiplies(monkeypatch):
    packed, x, bias = formats.pack(sparse(10, 32, 0.5, 0), "bitmask", "int8"), torch.randn(2, 3, 32), torch.randn(10)
    monkeypatch.setattr(build, "reason", lambda: "there is no C++ compiler")
    linear._warn.cache_clear()
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler"):
        y = matmul(packed, x, bias)
    torch.testing.assert_close(y, nn.functional.linear(x, formats.unpack(packed), bias))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matmul(packed, x)
