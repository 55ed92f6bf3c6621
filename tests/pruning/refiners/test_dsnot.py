from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.problems import Problem
from harness.pruning.patterns import nm, unstructured
from harness.pruning.refiners import dsnot

PATH = Path(__file__).parents[2] / "reference" / "refiners.py"
NEEDS = ("norm", "total", "variance")


@pytest.fixture(scope="session")
def reference():
    """The slow plain versions."""
    spec = importlib.util.spec_from_file_location("reference_refiners", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layer(rows, columns, sparsity=0.5, m=None, seed=0, steps=None):
    """A layer as the arguments of `refine`; `steps` rounds everything to that many steps a unit, which makes ties."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    norm = torch.rand(columns, generator=generator) + 0.5
    total, variance = torch.randn(columns, generator=generator), torch.rand(columns, generator=generator) + 0.1
    if steps:
        weight, norm, total, variance = (torch.round(x * steps) / steps for x in (weight, norm, total, variance))
    scores = weight.abs() * norm
    keep = nm.choose(scores, 0.5, n=m // 2, m=m) if m else unstructured.choose(scores, sparsity, group="row")
    given = {"norm": norm, "total": total, "variance": variance, "part": "attention", "period": m}
    return {"weight": weight, "keep": keep, "scores": scores, **given}


def errors(case, keep):
    return ((case["weight"] * case["total"]).double() * ~keep).sum(dim=1)


def test_by_hand():
    # c = w * total = (-1, 1, -3, 4), pruned are columns 1 and 3: e = 1 + 4 = 5. The largest c / variance of them is
    # column 1's, the lowest |w| * norm among the kept of c < 0 is column 0's: e = 5 - 1 - 1 = 3.
    case = {
        "weight": torch.tensor([[-1.0, 1.0, -3.0, 4.0]]),
        "keep": torch.tensor([[True, False, True, False]]),
        "scores": torch.zeros(1, 4),
        "norm": torch.ones(4),
        "total": torch.ones(4),
        "variance": torch.tensor([1.0, 1.0, 1.0, 8.0]),
        "part": "attention",
        "period": None,
    }
    assert dsnot.refine(**case, cycles=1).tolist() == [[False, True, True, False]]
    assert dsnot.refine(**case, cycles=1, power=0.0).tolist() == [[False, False, True, True]], "4 is the largest c"
    assert dsnot.refine(**case, cycles=2).tolist() == [[False, True, False, True]], "then 3 for 2, to e = -4"
    assert dsnot.refine(**case, cycles=2, sign_rule=True).tolist() == [[False, True, True, False]]
    assert dsnot.refine(**case, cycles=2, threshold=3.0).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("m", [None, 4, 8])
@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize(("sign_rule", "power"), [(False, 1.0), (True, 0.0), (False, 0.5)])
def test_agrees_with_the_plain_version(reference, m, steps, sign_rule, power):
    case = layer(12, 48, 0.6, m, seed=3, steps=steps)
    keep = dsnot.refine(**case, threshold=0.05, sign_rule=sign_rule, power=power)
    assert not torch.equal(keep, case["keep"])
    for row in range(12):
        rows = [case[name][row].tolist() for name in ("weight", "keep", "scores")]
        given = [case[name].tolist() for name in NEEDS]
        expected, _ = reference.dsnot_row(*rows, *given, m, 50, 0.05, power, sign_rule)
        assert keep[row].tolist() == expected


@settings(max_examples=60, derandomize=True)
@given(
    st.integers(1, 6),
    st.integers(1, 12),
    st.sampled_from([None, 4, 8]),
    st.floats(0, 0.95),
    st.integers(0, 60),
    st.floats(0, 2),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_counts_stay_in_rows_and_groups(rows, groups, m, sparsity, cycles, threshold, sign_rule, seed):
    case = layer(rows, 8 * groups, sparsity, m, seed)
    before = case["keep"].clone()
    keep = dsnot.refine(**case, cycles=cycles, threshold=threshold, sign_rule=sign_rule)
    assert keep.dtype == torch.bool and torch.equal(case["keep"], before), "the mask given is not changed"
    assert torch.equal(keep.sum(dim=1), before.sum(dim=1))
    assert int((keep != before).sum(dim=1).max()) <= 2 * cycles
    if m:
        assert torch.equal(keep.view(-1, m).sum(dim=1), before.view(-1, m).sum(dim=1))
    else:
        was, now = errors(case, before), errors(case, keep)
        moved = (keep != before).any(dim=1)
        if sign_rule:
            assert (now.abs()[moved] < was.abs()[moved]).all() and (now * was >= 0).all()
        assert (was.abs()[moved] > threshold - 1e-5).all(), "a row that is good enough stays as it is"


@pytest.mark.parametrize("m", [None, 4])
def test_the_expected_error_falls(m):
    case = layer(64, 256, 0.6, m)
    was, now = (errors(case, keep).abs().mean() for keep in (case["keep"], dsnot.refine(**case)))
    assert now < (0.25 if m else 0.05) * was


@pytest.mark.parametrize("m", [None, 4])
@pytest.mark.parametrize("stops", [{"cycles": 0}, {"threshold": 1e9}, {"parts": "feed_forward"}])
def test_what_leaves_the_mask_as_it_is(m, stops):
    case = layer(8, 64, m=m)
    assert torch.equal(dsnot.refine(**case, **stops), case["keep"])
    assert not torch.equal(dsnot.refine(**case), case["keep"])


@pytest.mark.parametrize(("parts", "edited"), [("attention", False), ("feed_forward", True), ("all", True)])
def test_feed_forward_layers_are_edited_only_where_asked(parts, edited):
    case = layer(8, 64) | {"part": "feed_forward"}
    assert torch.equal(dsnot.refine(**case, parts=parts), case["keep"]) != edited


@pytest.mark.parametrize("m", [None, 4])
def test_inputs_that_do_not_vary_divide_nothing_by_zero(m):
    case = layer(8, 32, m=m)
    case["variance"][:8] = 0
    case["total"][:4] = 0  # these are 0 throughout, the next four are constant
    keep = dsnot.refine(**case)
    assert not torch.equal(keep, case["keep"]) and torch.equal(keep.sum(dim=1), case["keep"].sum(dim=1))
    assert torch.equal((keep & ~case["keep"])[:, :4], torch.zeros(8, 4, dtype=torch.bool)), "nothing to gain there"
    assert (keep & ~case["keep"])[:, 4:8].any(), "a constant input is the surest gain"


def test_rows_are_edited_alike_in_one_chunk_and_in_many(monkeypatch):
    case = layer(13, 64, 0.6)
    whole = dsnot.refine(**case)
    monkeypatch.setattr(dsnot, "_CHUNK", 200)
    assert torch.equal(dsnot.refine(**case), whole)


def test_rows_may_differ_in_their_counts():
    case = layer(6, 64)
    case["keep"] = unstructured.choose(case["scores"], 0.5, group="matrix")
    counts = case["keep"].sum(dim=1)
    keep = dsnot.refine(**case)
    assert len(counts.unique()) > 1 and torch.equal(keep.sum(dim=1), counts)
    with pytest.raises(Problem, match="different numbers of weights"):
        dsnot.refine(**case, as_released=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_dtype_is_worked_on_in_float32(dtype):
    case = layer(8, 64)
    case["weight"] = case["weight"].to(dtype)
    exact = case | {"weight": case["weight"].float()}
    assert torch.equal(dsnot.refine(**case), dsnot.refine(**exact))


@pytest.mark.parametrize("m", [None, 4])
def test_the_letter_of_the_release_is_the_same_while_candidates_last(m):
    case = layer(16, 128, m=m)
    assert torch.equal(dsnot.refine(**case, cycles=8, as_released=True), dsnot.refine(**case, cycles=8))


def test_the_letter_of_the_release_names_the_cycle_it_runs_out_in():
    with pytest.raises(Problem, match=r"runs out of weights to swap in cycle \d+ of the released DSnoT"):
        dsnot.refine(**layer(16, 16), as_released=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("m", [None, 4])
@pytest.mark.parametrize("as_released", [False, True])
def test_cuda_agrees_with_the_cpu(m, as_released):
    case = layer(64, 256, m=m)
    there = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in case.items()}
    keep = dsnot.refine(**there, as_released=as_released)
    assert keep.is_cuda and (keep.cpu() == dsnot.refine(**case, as_released=as_released)).float().mean() > 0.999
