"""The operations of a step one by one, against torch."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness.inference.kernels import build, isa
from harness.inference.kernels.linear import PackedLinear
from harness.inference.native.program import NOTHING, Cached, Mask, Program, Step, Tables, Unsupported
from harness.inference.swap import Joined, Part

BUILDS = [name for name in isa.FEATURES if isa.has(name)]
WIDTHS = (1, 7, 16, 40, 77)

pytestmark = pytest.mark.skipif(build.reason() is not None, reason=str(build.reason()))


@pytest.fixture(params=BUILDS, autouse=True)
def limited(request):
    with isa.limit(request.param):
        yield


def run(program, x, **given):
    """Runs a program on rows [batch, width]."""
    y = torch.empty(len(x), program.result.width)
    step = Step(
        ops=ctypes.addressof(program.array),
        count=len(program.array),
        size=program.most,
        threads=2,
        batch=len(x),
        from_=program.input,
        result=program.result,
        x=x.data_ptr(),
        y=y.data_ptr(),
        **given,
    )
    build.library("step").step(ctypes.addressof(step))
    return y


FUNCTIONS = {
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations(name, width):
    drawn = torch.randn(2, width, generator=torch.Generator().manual_seed(0)) * 3
    x = torch.cat([drawn, torch.linspace(-120, 120, width)[None], torch.zeros(1, width)])
    program = Program(width)
    program.finish(program.activate(name, program.input))
    torch.testing.assert_close(run(program, x), FUNCTIONS[name](x), rtol=2e-6, atol=1e-6)
    x[1, -1] = float("nan")
    assert run(program, x).isnan().sum() == 1


def test_an_activation_gates():
    program = Program(48)
    gate, up = program.split(program.input, 2)
    program.finish(program.activate("silu", gate, up))
    x = torch.randn(3, 48)
    torch.testing.assert_close(run(program, x), F.silu(x[:, :24]) * x[:, 24:])


def test_an_activation_that_is_not_known_is_refused():
    program = Program(4)
    with pytest.raises(Unsupported, match="tanh"):
        program.activate("tanh", program.input)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("affine, bias", [(True, True), (True, False), (False, False)])
def test_layer_norms(width, affine, bias):
    norm = nn.LayerNorm(width, eps=1e-3, elementwise_affine=affine, bias=bias)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    program = Program(width)
    program.finish(program.norm(norm, program.input))
    x = torch.randn(3, width) * 5 + 2
    torch.testing.assert_close(run(program, x), norm(x).detach(), rtol=1e-5, atol=1e-5)


def test_joined_layers_are_multiplied_once():
    dense = [nn.Linear(30, 20), nn.Linear(30, 9)]
    whole = nn.Linear(30, 29)
    whole.weight.data, whole.bias.data = (torch.cat([getattr(each, n) for each in dense]) for n in ("weight", "bias"))
    joined = Joined(PackedLinear.from_linear(whole), [20, 9])
    program = Program(30)
    first, second = (program.linear(Part(joined, index), program.input) for index in range(2))
    program.finish(program.activate("relu", second))
    assert (first.column, second.column) == (0, 20) and len(program.ops) == 2
    assert (first.columns, second.columns) == (20, 9)
    x = torch.randn(5, 30)
    torch.testing.assert_close(run(program, x), F.relu(dense[1](x)).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dim", (2, 20, 64, 72))
def test_rotary_positions(dim):
    program = Program(3 * dim)
    program.rotate(program.input, 3, dim)
    program.finish(program.input)
    cosines, sines, x = torch.randn(6, dim), torch.randn(6, dim), torch.randn(2, 3 * dim)
    positions = (ctypes.c_int64 * 2)(5, 1)
    given = {"cosines": cosines.data_ptr(), "sines": sines.data_ptr(), "positions": ctypes.addressof(positions)}
    heads = x.view(2, 3, dim)
    turned = torch.cat([-heads[..., dim // 2 :], heads[..., : dim // 2]], -1)
    expected = heads * cosines[[5, 1], None] + turned * sines[[5, 1], None]
    torch.testing.assert_close(run(program, x, **given), expected.view(2, -1))


@pytest.mark.parametrize("kept", [None, torch.bool, torch.int64])
@pytest.mark.parametrize("dim, length", [(5, 3), (20, 33), (64, 7), (80, 600)])
def test_attention(dim, length, kept):
    batch, heads, shared = 2, 6, 3
    program = Program((heads + 2 * shared) * dim)
    widths = (heads * dim, shared * dim, shared * dim)
    q, k, v = (program.input.part(sum(widths[:index]), width) for index, width in enumerate(widths))
    shape = {"layer": 0, "heads": heads, "shared": shared, "dim": dim, "scale": 0.3}
    program.finish(program.attend(q, k, v, **shape))
    held, x = torch.randn(2, batch, shared, length + 1, dim), torch.randn(batch, (heads + 2 * shared) * dim)
    layer = Cached(held[0].data_ptr(), held[1].data_ptr(), held.stride(1), held.stride(2), length)
    distances, mask, given = torch.randn(heads, length + 5), torch.rand(batch, length + 1) > 0.4, {}
    mask[:, -1] = True
    if kept is None:
        mask[:] = True
    else:
        numbers = mask.to(kept)
        given["mask"] = Mask(numbers.data_ptr(), length + 1, numbers.element_size())
    y = run(program, x, own=ctypes.addressof(layer), distances=distances.data_ptr(), reach=length + 5, **given)
    queries, keys, values = x.view(batch, -1, dim).split([heads, shared, shared], 1)
    assert torch.equal(held[0, :, :, length], keys) and torch.equal(held[1, :, :, length], values)
    bias = distances[:, : length + 1].flip(-1)[None, :, None].masked_fill(~mask[:, None, None], -1e30)
    wide = held.repeat_interleave(heads // shared, 2)
    expected = F.scaled_dot_product_attention(queries[:, :, None], *wide, bias, scale=0.3)
    torch.testing.assert_close(y, expected.reshape(batch, -1), rtol=1e-5, atol=1e-5)


def test_attention_to_what_was_read():
    program = Program(40)
    program.finish(program.attend(program.input, layer=1, heads=2, shared=2, dim=20, scale=1.0))
    held, x = torch.randn(2, 3, 2, 9, 20), torch.randn(3, 40)
    layer = Cached(held[0].data_ptr(), held[1].data_ptr(), held.stride(1), held.stride(2), 9)
    layers = (Cached * 2)(Cached(), layer)
    y = run(program, x, crossed=ctypes.addressof(layers))
    expected = F.scaled_dot_product_attention(x.view(3, 2, 1, 20), held[0], held[1], scale=1.0)
    torch.testing.assert_close(y, expected.reshape(3, 40), rtol=1e-5, atol=1e-5)


def test_registers_of_a_block_are_used_again():
    program = Program(20)
    for _ in range(3):
        with program.block():
            program.add(program.input, program.activate("relu", program.input))
    program.finish(program.input)
    assert program.most == 64 and NOTHING.start == -1
    x = torch.randn(2, 20)
    expected = x
    for _ in range(3):
        expected = expected + expected.relu()
    torch.testing.assert_close(run(program, x), expected)


def packed(inputs, outputs):
    return PackedLinear.from_linear(nn.Linear(inputs, outputs))


HEADS = {"layer": 0, "heads": 4, "shared": 2, "dim": 6, "scale": 1.0}
"""Of queries 24 wide, and keys and values 12 wide."""
WRONG = {
    "linear, wider": lambda program, x: program.linear(packed(25, 8), x),
    "linear, narrower": lambda program, x: program.linear(packed(23, 8), x),
    "linear, some columns": lambda program, x: program.linear(packed(12, 8), program.split(x, 2)[0]),
    "joined": lambda program, x: program.linear(Part(Joined(packed(24, 8), [4, 5]), 0), x),
    "split": lambda program, x: program.split(x, 5),
    "add, wider": lambda program, x: program.add(x, program.register(25)),
    "add, narrower": lambda program, x: program.add(x, program.split(x, 2)[0]),
    "activate": lambda program, x: program.activate("relu", x, program.split(x, 2)[1]),
    "rotate": lambda program, x: program.rotate(x, 4, 8),
    "norm": lambda program, x: program.norm(nn.LayerNorm(23), x),
    "norm, no weights": lambda program, x: program.norm(nn.LayerNorm(25, elementwise_affine=False), x),
    "norm, weights": lambda program, x: program.norm(cut(nn.LayerNorm(24)), x),
    "norm, heads": lambda program, x: program.norm_heads(nn.LayerNorm(6), x, 3, 6),
    "norm, of a head": lambda program, x: program.norm_heads(nn.LayerNorm(24), x, 4, 6),
    "attend, queries": lambda program, x: program.attend(
        program.register(12), layer=0, heads=4, shared=4, dim=6, scale=1
    ),
    "attend, keys": lambda program, x: program.attend(x, x, program.split(x, 2)[1], **HEADS),
    "attend, values": lambda program, x: program.attend(x, program.split(x, 2)[0], x, **HEADS),
    "attend, groups": lambda program, x: program.attend(x, layer=0, heads=4, shared=3, dim=6, scale=1.0),
    "finish": lambda program, x: program.finish(program.split(x, 2)[0]),
}


def cut(norm):
    norm.weight.data = norm.weight.data[:12]
    return norm


@pytest.mark.parametrize("what", WRONG)
def test_other_widths_than_an_operation_reads_are_refused(what):
    program = Program(24)
    with pytest.raises(Unsupported):
        WRONG[what](program, program.input)


def test_layers_of_unlike_heads_are_refused():
    program = Program(24)
    first, second = program.split(program.input, 2)
    program.attend(program.input, first, second, **HEADS)
    program.attend(program.input, first, second, **HEADS | {"layer": 1, "shared": 1, "dim": 12, "heads": 2})
    assert program.own == {0: (2, 6), 1: (1, 12)} and not program.crossed
    with pytest.raises(Unsupported, match="other heads"):
        program.finish(program.input)


def test_tables_of_other_shapes_or_types_are_refused():
    program = Program(24)
    program.rotate(program.input, 4, 6)
    program.attend(program.input, *program.split(program.input, 2), **HEADS)
    angles, distances = torch.zeros(9, 6), torch.zeros(4, 9)
    program.check(Tables(9))
    program.check(Tables(9, cosines=angles, sines=angles, distances=distances))
    wrong = {"cosines": (angles[:, :4], angles[:8], angles.double()), "distances": (distances[:2], distances.half())}
    for name, tensors in wrong.items():
        for tensor in tensors:
            with pytest.raises(Unsupported, match="tables"):
                program.check(Tables(9, **{name: tensor}))
