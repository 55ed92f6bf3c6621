from __future__ import annotations

import pytest
import torch

from harness.inference import formats
from harness.inference.choice import choose, estimates, pack
from harness.inference.kernels import isa
from harness.problems import Problem
from harness.quantization.grid import Grid


def sparse(rows, columns, sparsity):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, columns, generator=generator) * (
        torch.rand(rows, columns, generator=generator) >= sparsity
    )


@pytest.mark.parametrize("sparsity", [0, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_bytes_are_those_that_are_stored(sparsity, precision):
    weight = sparse(512, 1024, sparsity)
    for estimate in estimates(weight, precision):
        packed = formats.pack(weight, estimate.format, precision)
        beside = sum(packed.tensors[name].nbytes for name in ("rows", "sums", "scales") if name in packed.tensors)
        assert estimate.bytes == pytest.approx(packed.bytes - beside, rel=0.08)


def test_several_scales_a_row_want_a_format_that_holds_them(monkeypatch):
    monkeypatch.setattr(isa, "best", lambda: "avx512")
    weight = sparse(64, 512, 0.97)
    assert [pack(weight, "auto", "int8", group=group).format for group in (0, 512, 64)] == ["index", "index", "bitmask"]
    grid = Grid(torch.full((64, 8), 0.1), torch.zeros(64, 8), 8, 64)
    assert pack(torch.where(weight == 0, 0, torch.tensor(0.1)), "auto", "int8", grid=grid).format == "bitmask"


@pytest.mark.parametrize(
    "build, sparsity, precision, expected",
    [
        ("avx512", 0, "fp32", "dense"),
        ("avx512", 0.5, "int8", "bitmask"),
        ("avx512", 0.75, "bf16", "bitmask"),
        ("avx512", 0.97, "fp32", "index"),
        ("avx2", 0.5, "int8", "dense"),
        ("avx2", 0.65, "int8", "slot:slots=6"),
        ("avx2", 0.75, "int8", "slot:slots=5"),
        ("avx2", 0.8, "int8", "slot:slots=4"),
        ("avx2", 0.85, "int8", "slot:slots=3"),
        ("avx2", 0.9, "int8", "slot:slots=2"),
        ("avx2", 0.75, "fp32", "slot:slots=4"),
        ("avx2", 0.75, "bf16", "slot:slots=4"),
        ("avx2", 0.8, "fp32", "slot:slots=3"),
        ("avx2", 0.8, "bf16", "slot:slots=3"),
        ("avx2", 0.9, "bf16", "index"),
        ("avx2", 0.97, "fp32", "index"),
    ],
)
def test_choices(build, sparsity, precision, expected, monkeypatch):
    monkeypatch.setattr(isa, "best", lambda: build)
    assert choose(sparse(256, 1024, sparsity), precision) == expected


def test_a_wide_matrix_has_no_format_of_16_bit_columns():
    assert {each.format for each in estimates(torch.ones(1, 65537))} == {"dense", "bitmask"}


def test_an_unknown_precision():
    with pytest.raises(Problem, match="unknown precision"):
        choose(torch.ones(2, 2), "int4")
