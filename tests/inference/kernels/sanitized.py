"""Multiplies and expands small matrices, and decodes, with kernels compiled with the address and undefined-behaviour
sanitizers.

Run by test_sanitized.py in a process of its own, into which the sanitizers are loaded before anything else: every
tensor is then memory that they watch, so a read or write beyond one ends the process.
"""

from __future__ import annotations

import itertools
import sys

import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from harness import rooms
from harness.inference import formats, native
from harness.inference.formats import slot
from harness.inference.kernels import build, isa, linear

FORMATS = ("dense", "bitmask", "index", *(f"slot:slots={slots}" for slots in slot.SLOTS))
BITS = ((14,), linear.BITS)
"""Of activations, with floats and with int8."""


def main(name: str, names: list[str]) -> None:
    build.FLAGS = (*build.FLAGS, "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    torch.manual_seed(0)
    torch.set_num_threads(2)
    with isa.limit(name):
        for rows, columns in ((1, 1), (9, 40), (17, 130)):
            for sparsity in (0, 0.7, 1):
                weight = torch.randn(rows, columns) * (torch.rand(rows, columns) >= sparsity)
                for format in names or FORMATS:
                    for precision in formats.PRECISIONS:
                        packed = formats.pack(weight, format, precision)
                        for batch, bits in itertools.product((1, 3, 16, 100, 260), BITS[precision == "int8"]):
                            x = torch.randn(batch, columns)
                            y = linear.matmul(packed, x, activations=bits)
                            exact = (linear.rounded(x, 8) if bits == 8 else x) @ formats.unpack(packed).T
                            off = (y - exact).abs().max()
                            assert off < 1e-2, (rows, columns, sparsity, format, precision, batch, bits, off)
        if not names:
            wide()
            decode()


def wide() -> None:
    """More columns, rows and groups than one part of a product takes, and a bias."""
    weight, bias = torch.randn(6, 4200) * (torch.rand(6, 4200) >= 0.7), torch.randn(6)
    ways = [("int8", group, bits) for group in (0, 64) for bits in linear.BITS] + [("fp32", 0, 14), ("bf16", 0, 14)]
    for format, (precision, group, bits) in itertools.product(("dense", "bitmask"), ways):
        packed = formats.pack(weight, format, precision, group=group)
        x = torch.randn(131 if precision == "int8" else 250, 4200)
        y = linear.matmul(packed, x, bias, activations=bits)
        exact = (linear.rounded(x, 8) if bits == 8 else x) @ formats.unpack(packed).T + bias
        off = (y - exact).abs().max()
        assert off < 0.1, (format, precision, group, bits, off)


def decode() -> None:
    """Native steps with heads and layers of odd widths, padded rows, and a memory that is filled to its end."""
    heads = {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 10}
    size = {"hidden_size": 30, "intermediate_size": 41, "num_hidden_layers": 2, "vocab_size": 50}
    model = rooms.bind("engine", "packed:format=bitmask")(LlamaForCausalLM(LlamaConfig(**size, **heads)).eval())
    native.cache.ROOM = 3
    for batch in (1, 16):
        with torch.inference_mode():
            mask, cache = torch.ones(batch, 5, dtype=torch.long), None
            mask[0, 0] = 0
            for _ in range(9):
                tokens = torch.ones(batch, 1 if cache else 5, dtype=torch.long)
                cache = model(tokens, attention_mask=mask, past_key_values=cache).past_key_values
                mask = F.pad(mask, (0, 1), value=1)
    assert native.counts(model)["native"] == 16


main(sys.argv[1], sys.argv[2:])
