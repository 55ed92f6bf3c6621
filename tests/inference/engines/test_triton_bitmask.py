"""The Triton kernel, in Triton's interpreter: the products of the weights that it says it multiplies with."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from harness.inference.engines.triton_bitmask import MOST_ROWS, BitmaskLinear

BOUND = {"fp16": 2**-10, "bf16": 2**-7, "int8": 0.5 / 127}
"""Largest error of a weight, over the row's largest."""


@pytest.mark.parametrize("precision", BOUND)
def test_packed_weights_are_the_weights_rounded(precision):
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(9, 150, generator=draw) * (torch.rand(9, 150, generator=draw) > 0.7)
    layer = BitmaskLinear(weight, None, precision)
    error = (layer.expanded() - weight).abs() / weight.abs().amax(1, keepdim=True)
    assert error.max() <= BOUND[precision]
    assert torch.equal(layer.expanded() != 0, weight != 0) or precision == "int8"


def test_a_cast_model_keeps_its_packed_values():
    layer = BitmaskLinear(torch.eye(4, 70) * 0.3, torch.ones(4), "int8")
    before = layer.expanded()
    cast = layer.to(torch.bfloat16)
    assert torch.equal(cast.expanded(), before) and cast.bias.dtype == torch.bfloat16


def test_many_rows_are_multiplied_dense():
    weight, bias = torch.randn(5, 64), torch.randn(5)
    layer, x = BitmaskLinear(weight, bias, "fp16"), torch.randn(2, MOST_ROWS, 64)
    torch.testing.assert_close(layer(x), x @ layer.expanded().T + bias)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="the package triton is not installed")
def test_the_kernel_multiplies_the_packed_weights():
    code = textwrap.dedent("""
        import torch
        from harness.inference.engines.triton_bitmask import BitmaskLinear
        torch.manual_seed(0)
        for shape in ((40, 200), (17, 64), (16, 130)):
            for precision in ("fp16", "bf16", "int8"):
                for batch in (1, 3, 16):
                    weight, bias = torch.randn(shape) * (torch.rand(shape) > 0.6), torch.randn(shape[0])
                    layer, x = BitmaskLinear(weight, bias, precision), torch.randn(batch, shape[1])
                    torch.testing.assert_close(layer(x), x @ layer.expanded().T + bias, rtol=1e-5, atol=1e-4)
    """)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "TRITON_INTERPRET": "1"})
