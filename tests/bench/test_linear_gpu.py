from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from harness.bench import linear_gpu
from harness.problems import Problem

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("triton") is None, reason="no CUDA device, or no triton"
)


@no_gpu
def test_without_a_gpu_it_says_so(harness, tmp_path):
    status, _, err = harness("bench", "linear", "--device", "cuda", "--out", tmp_path / "out.json")
    assert status and "there is no CUDA device" in err and not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "options, said",
    [
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--device", "cuda", "--threads", "2", "--formats", "index"], "--formats, --threads"),
        (["--device", "cuda", "--precisions", "fp32"], "unknown precision 'fp32'"),
        (["--device", "cuda", "--shapes", "64"], "cannot read the shape '64'"),
    ],
)
def test_mistakes_are_found_before_anything_runs(harness, tmp_path, options, said):
    status, _, err = harness("bench", "linear", *options, "--out", tmp_path / "out.json")
    assert status and said in err


def test_a_product_that_is_wrong_is_told():
    wanted = torch.ones(1, 8, dtype=torch.float64)
    linear_gpu.check(linear_gpu.Contender("close", 0, lambda: torch.full((1, 8), 1.01)), wanted)
    for wrong in (1.5, float("nan")):
        contender = linear_gpu.Contender("bitmask int8", 0, lambda wrong=wrong: torch.full((1, 8), wrong))
        with pytest.raises(Problem, match="off by") as told:
            linear_gpu.check(contender, wanted)
        assert told.value.where == "bitmask int8"


def test_the_table_has_every_contender_over_cublas():
    sizes = [(linear_gpu.OWN, 1 << 20), (linear_gpu.BASE, 1 << 20), ("bitmask fp16", 1 << 19)]
    times = [[2e-5], [4e-5], [1.25e-5]]
    rows = linear_gpu.linear.compared(sizes, times, 100.0, linear_gpu.BASE, linear_gpu.OWN)
    assert [row["over_dense"] for row in rows] == pytest.approx([1, 0.5, 1.6])
    assert rows[2]["share"] == pytest.approx(0.8) and rows[2]["over_torch"] == pytest.approx(3.2)
    speed = {"median": 100.0, "min": 90.0, "max": 110.0}
    case = {
        "shape": "8x64",
        "sparsity": "0.5",
        "batch": 1,
        "bandwidth": speed,
        "rows": rows,
        "absent": ["torch 2:4: no"],
    }
    text = linear_gpu.table({"environment": {"gpu": "a GPU"}, "repeats": 1, "cases": [case]})
    assert "x cuBLAS bf16 | x cuBLAS fp16" in text and "Not run: torch 2:4: no." in text
    assert "| bitmask fp16 | 0.0125 |" in text and "on a GPU, 1 rounds" in text


@pytest.mark.gpu
@gpu
def test_a_gpu_times_every_contender(tmp_path):
    out = tmp_path / "linear_gpu.json"
    linear_gpu.command(shapes=["256x1088"], sparsities=["0.75", "2:4"], batches=[1, 16], repeats=3, out=out)
    cases = json.loads(out.read_text())["cases"]
    ours = {"cuBLAS fp16", "cuBLAS bf16", "bitmask fp16", "bitmask bf16", "bitmask int8"}
    assert [(case["sparsity"], case["batch"]) for case in cases] == [("0.75", 1), ("0.75", 16), ("2:4", 1), ("2:4", 16)]
    for case in cases:
        names = {row["name"] for row in case["rows"]}
        assert ours <= names and bool(case["absent"]) == ("torch 2:4 fp16" not in names)
        assert all(row["seconds"]["min"] > 0 and row["products"] == 3 for row in case["rows"])
