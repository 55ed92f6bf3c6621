"""Multiplies and expands small matrices with kernels compiled with the address and undefined-behaviour sanitizers.

Run by test_sanitized.py in a process of its own, into which the sanitizers are loaded before anything else: every
tensor is then memory that they watch, so a read or write beyond one ends the process.
"""

from __future__ import annotations

import sys

import torch

from harness.inference import formats
from harness.inference.kernels import build, isa, linear

FORMATS = ("dense", "bitmask", "index", "slot", "slot:slots=8")


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
                        for batch in (1, 3, 16, 100):
                            x = torch.randn(batch, columns)
                            off = (linear.matmul(packed, x) - x @ formats.unpack(packed).T).abs().max()
                            assert off < 1e-2, (rows, columns, sparsity, format, precision, batch, off)


main(sys.argv[1], sys.argv[2:])
