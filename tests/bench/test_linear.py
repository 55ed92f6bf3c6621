from __future__ import annotations

import json

import pytest
import torch

from harness.bench import linear, products
from harness.inference.kernels import build
from harness.problems import Problem

pytestmark = pytest.mark.skipif(build.reason() is not None, reason=str(build.reason()))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(linear, "last_cache", lambda: 1 << 16)


def test_every_contender_multiplies_the_same():
    with torch.inference_mode():
        weight, x = products.matrix(64, 128, "0.5"), torch.randn(3, 128)
        found = [*products.peers(weight, x), *products.ours(weight, x, linear.FORMATS, ("fp32", "bf16", "int8"))]
        assert [each for each in found if isinstance(each, str)] == []
        for each in found:
            first, second = each.copy(), each.copy()
            for y in (first(), second()):
                y = y.T if y.shape == (64, 3) else y
                torch.testing.assert_close(y.float(), x @ weight.T, atol=0.6, rtol=0.05)
            assert each.bytes > 0


def test_a_format_that_cannot_hold_the_weights_says_why():
    (why,) = products.ours(torch.ones(4, 16), torch.ones(1, 16), ["2:4"], ["fp32"])
    assert why.startswith("2:4 fp32: row 0 has 4 weights")


@pytest.mark.parametrize("sparsity, zeros", [("0.75", 0.75), ("8:16", 0.5), ("4:16", 0.75)])
def test_matrices_have_their_sparsity(sparsity, zeros):
    weight = products.matrix(64, 256, sparsity)
    assert float((weight == 0).float().mean()) == pytest.approx(zeros, abs=0.02)
    if ":" in sparsity:
        assert set((weight.view(64, -1, 16) != 0).sum(2).flatten().tolist()) == {int(sparsity.split(":")[0])}


def test_the_record_and_its_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "linear.json"
    linear.command(
        shapes=["64x128"],
        sparsities=["0.5", "4:16"],
        batches=[1, 2],
        threads=[1],
        formats=["bitmask", "2:4"],
        precisions=["int8"],
        repeats=2,
        out=out,
    )
    said = json.loads(out.read_text())
    assert [(case["sparsity"], case["batch"]) for case in said["cases"]] == [
        ("0.5", 1),
        ("0.5", 2),
        ("4:16", 1),
        ("4:16", 2),
    ]
    case = said["cases"][0]
    rows = {row["name"]: row for row in case["rows"]}
    ours = {"dense fp32", "dense int8", "dense int8 x 8 bits", "bitmask int8", "bitmask int8 x 8 bits"}
    assert {"torch fp32", "torch bf16"} | ours <= set(rows)
    assert rows["torch fp32"]["over_torch"] == rows["dense fp32"]["over_dense"] == rows["dense fp32"]["share"] == 1
    row = rows["bitmask int8"]
    ratio = rows["dense fp32"]["seconds"]["median"] / row["seconds"]["median"]
    assert row["over_dense"] == pytest.approx(ratio)
    assert row["share"] == pytest.approx(ratio * row["bytes"] / rows["dense fp32"]["bytes"])
    assert case["absent"] and all("nm" in why for why in case["absent"])
    text = out.with_suffix(".md").read_text()
    assert "| bitmask int8 |" in text and "Not run: nm" in text
    assert "bitmask int8" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, said",
    [
        ({"shapes": ["64"]}, "cannot read the shape '64'"),
        ({"shapes": ["0x5"]}, "cannot read the shape '0x5'"),
        ({"sparsities": ["1.5"]}, "cannot read the sparsity '1.5'"),
        ({"sparsities": ["nan"]}, "cannot read the sparsity 'nan'"),
        ({"sparsities": ["5:4"]}, "5:4"),
        ({"formats": ["bitmaks"]}, "did you mean 'bitmask'"),
        ({"precisions": ["int4"]}, "unknown precision"),
        ({"builds": ["sse"]}, "unknown build"),
    ],
)
def test_mistakes_are_found_before_anything_runs(options, said, tmp_path):
    with pytest.raises(Problem, match=said):
        linear.command(**{"shapes": ["8x64"], **options}, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
