"""Layers of the Triton engine; the kernels run in Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.inference import grids
from harness.inference.engines._places import BLOCK
from harness.inference.engines.triton_bitmask import MOST_ROWS, BitmaskLinear, prepare
from harness.inference.formats import pack, unpack
from harness.problems import Problem
from harness.quantization.grid import Grid

triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="the package triton is not installed")

ODD = [(1, 1), (17, 64), (9, 1025), (20, 2200)]
"""Shapes that fill no program, word or block."""
LAYERS = f"""
import torch
from harness.inference.engines import _triton_kernel as kernel
from harness.inference.engines.triton_bitmask import BitmaskLinear
from harness.inference.formats import pack, unpack

def layers(precision):
    draw = torch.Generator().manual_seed(0)
    for shape in {ODD}:
        weight = torch.randn(shape, generator=draw) * (torch.rand(shape, generator=draw) > 0.7)
        weight[len(weight) // 2] = 0
        for each in (weight, torch.randn(shape, generator=draw), torch.zeros(shape)):
            bias = torch.randn(shape[0], generator=draw)
            yield BitmaskLinear(each, bias, precision), unpack(pack(each, "bitmask", precision)), bias
"""


def interpreted(code, *arguments):
    run = [sys.executable, "-c", LAYERS + "import sys\n" + textwrap.dedent(code), *map(str, arguments)]
    subprocess.run(run, check=True, env={**os.environ, "TRITON_INTERPRET": "1"})


def pruned(rows, columns, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=draw) * (torch.rand(rows, columns, generator=draw) > 0.75)


def test_a_quantised_model_is_not_rounded_anew():
    model = LlamaForCausalLM(
        LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=8)
    )
    name = "model.layers.0.mlp.down_proj"
    grids.attach(model, {name: Grid(torch.ones(16, 1), torch.zeros(16, 1), 8, 16)})
    with pytest.raises(Problem, match="anew") as caught:
        prepare(model, precision="int8")
    assert caught.value.where == name


def test_a_cast_model_keeps_its_packed_values():
    layer = BitmaskLinear(torch.eye(4, 70) * 0.3, torch.ones(4), "int8")
    values, scales = layer.values.clone(), layer.scales.clone()
    cast = layer.to(torch.bfloat16)
    assert torch.equal(cast.values, values) and torch.equal(cast.scales, scales)
    assert cast.bias.dtype == torch.bfloat16


@pytest.mark.parametrize("precision, size, scales", [("fp16", 2, 0), ("bf16", 2, 0), ("int8", 1, 4)])
def test_the_bytes_are_those_of_the_byte_bound(precision, size, scales):
    weight = pruned(64, 4 * BLOCK)
    each = size * float((weight != 0).float().mean()) + 1 / 8 + 9 / 256
    slack = 64 * size + 64 * scales
    zeroed = 64 if precision == "int8" else 0  # an int8 code may round to zero
    assert BitmaskLinear(weight, None, precision).bytes == pytest.approx(each * weight.numel() + slack, abs=20 * zeroed)


@triton
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_the_kernels_multiply_the_packed_weights(precision):
    code = """
        for layer, weight, bias in layers(sys.argv[1]):
            # columns split between as many programs as they can be, and not at all
            for kernel.PROGRAMS, batch in ((512, 1), (512, 5), (512, 16), (1, 1), (1, 2)):
                x = torch.randn(batch, weight.shape[1])
                torch.testing.assert_close(layer(x), x @ weight.T + bias, rtol=1e-5, atol=1e-4)
    """
    interpreted(code, precision)


@triton
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_the_expanded_weights_are_the_packed_ones(precision):
    code = f"""
        for layer, weight, bias in layers(sys.argv[1]):
            assert torch.equal(layer.expanded(torch.float32), weight)
            for dtype in (torch.float16, torch.bfloat16):
                eps = torch.finfo(dtype).eps  # the interpreter cuts off where a GPU rounds
                torch.testing.assert_close(layer.expanded(dtype).float(), weight, rtol=eps, atol=1e-7)
            x = torch.randn(2, {MOST_ROWS}, weight.shape[1])
            torch.testing.assert_close(layer(x), x @ weight.T + bias)
            assert layer(x[:, :0]).shape == (2, 0, len(weight))
    """
    interpreted(code, precision)


@triton
def test_16_bit_activations_are_added_in_fp32():
    code = """
        # several rows in bf16 only with fp32 products: the interpreter's dot multiplies the bits of bf16 as integers
        batches = {("bf16", torch.bfloat16): [1], ("int8", torch.bfloat16): [1]}
        for dtype in (torch.float16, torch.bfloat16):
            for precision in ("fp16", "bf16", "int8"):
                layer, weight, bias = list(layers(precision))[-3]
                layer = layer.to(dtype)
                for batch in batches.get((precision, dtype), (1, 3)):
                    x = torch.randn(batch, weight.shape[1]).to(dtype)
                    wanted = x.float() @ weight.T + bias.to(dtype).float()
                    y = layer(x)
                    assert y.dtype == dtype
                    torch.testing.assert_close(y.float(), wanted, rtol=2 * torch.finfo(dtype).eps, atol=1e-3)
    """
    interpreted(code)


@pytest.mark.gpu
@triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize("shape", [*ODD, (4096, 11008)])
def test_a_gpu_multiplies_the_packed_weights(shape, precision, dtype):
    weight = pruned(*shape)
    exact = unpack(pack(weight, "bitmask", precision)).cuda().double()
    layer = BitmaskLinear(weight, torch.ones(shape[0]), precision).cuda().to(dtype)
    for batch in (1, 2, 7, 16, 40):
        x = torch.randn(batch, shape[1], device="cuda").to(dtype)
        wanted = x.double() @ exact.T + 1
        error = (layer(x).double() - wanted).abs().max()
        assert error <= 4 * torch.finfo(dtype).eps * wanted.abs().max() + 1e-3
    assert torch.equal(layer.expanded(dtype), exact.float().to(dtype))
    again = [layer(x[:3]) for _ in range(3)]
    assert torch.equal(again[0], again[1]) and torch.equal(again[1], again[2])
