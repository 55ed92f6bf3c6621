from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from harness.models import Linear
from harness.problems import Problem
from harness.pruning.recipe import clock, prune, recipe
from harness.pruning.solvers import Solved
from harness.pruning.statistics import STATISTICS
from harness.rooms import ROOMS

METHODS = [("criterion", "magnitude"), ("criterion", "wanda"), ("solver", "sparsegpt:block=8")]


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return Linear("a.layer", nn.Linear(32, 10), "decoder", "attention")


@pytest.fixture
def inputs():
    x = torch.randn(100, 32, generator=torch.Generator().manual_seed(1))
    return {"norm": x.square().mean(0).sqrt(), "gram": x.T @ x / 100, "length": torch.tensor(100.0)}


def of(inputs, how):
    return {need: inputs[need] for need in how.needs}


def test_needs_are_the_statistics_alone():
    assert recipe("criterion", "magnitude", "unstructured").needs == ()
    assert recipe("criterion", "wanda", "unstructured").needs == ("norm",)
    assert recipe("solver", "sparsegpt", "2:4").needs == ("gram", "length")


def test_the_papers_comparison_group_is_the_default(linear, inputs):
    weight = linear.module.weight.detach().clone()
    for kind, name, counted in (("criterion", "wanda", "rows"), ("criterion", "magnitude", "whole")):
        how = recipe(kind, name, "unstructured")
        keep = how.solve(weight, of(inputs, how), 0.3).keep
        by_row = (~keep).sum(1)
        assert (by_row == 9).all() if counted == "rows" else int(by_row.sum()) == 96 and by_row.unique().numel() > 1


def test_the_group_can_be_asked_for(linear):
    how = recipe("criterion", "magnitude", "unstructured:group=row")
    assert ((~how.solve(linear.module.weight.detach(), {}, 0.5).keep).sum(1) == 16).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["unstructured", "unstructured:group=row", "2:4", "4:8"])
def test_prune_writes_the_layer_and_says_what_it_did(linear, inputs, method, pattern):
    how = recipe(*method, pattern)
    bias = linear.module.bias.detach().clone()
    keep, row = prune(linear, of(inputs, how), 0.5, how)
    weight = linear.module.weight
    assert (weight[~keep] == 0).all() and (weight[keep] != 0).all() and weight.requires_grad
    assert torch.equal(linear.module.bias, bias)
    assert {key: row[key] for key in ("asked", "reached", "zeros", "size")} == {
        "asked": 0.5, "reached": 0.5, "zeros": 160, "size": 320,
    }  # fmt: skip
    assert row["seconds"] >= 0 and ("damping" in row) == (method[0] == "solver")


def test_pruning_twice_changes_nothing(linear, inputs):
    for name in ("magnitude", "wanda"):
        how = recipe("criterion", name, "unstructured")
        keep, _ = prune(linear, of(inputs, how), 0.6, how)
        once = linear.module.weight.detach().clone()
        assert torch.equal(prune(linear, of(inputs, how), 0.6, how)[0], keep)
        assert torch.equal(linear.module.weight, once)


def test_a_problem_names_the_layer(inputs):
    odd = Linear("odd.layer", nn.Linear(30, 4), "decoder", "attention")
    with pytest.raises(Problem, match=r"odd\.layer: its 30 inputs do not divide into groups of 4"):
        prune(odd, {}, 0.5, recipe("criterion", "magnitude", "2:4"))


def test_scores_that_are_not_finite_name_the_layer(linear):
    with torch.no_grad():
        linear.module.weight[0, 0] = float("nan")
    with pytest.raises(Problem, match=r"a\.layer: magnitude gives scores that are not finite"):
        prune(linear, {}, 0.5, recipe("criterion", "magnitude", "unstructured"))


def wrong(weight, how):
    keep = how.choose(weight.abs(), 0.5)
    flipped = keep.clone()
    flipped[0, :2] = ~flipped[0, :2]
    return {
        "the sparsity": Solved(weight * how.choose(weight.abs(), 0.4), how.choose(weight.abs(), 0.4), 32),
        "not all zero": Solved(weight, keep, 32),
        "not finite": Solved(weight / 0 * keep, keep, 32),
        "pruned weights are torch.float64": Solved((weight * keep).double(), keep, 32),
    }


@pytest.mark.parametrize("message", ["the sparsity", "not all zero", "not finite", "pruned weights are torch.float64"])
def test_a_method_that_breaks_its_promise_is_caught_and_the_layer_left_alone(linear, message):
    how = recipe("criterion", "magnitude", "unstructured:group=row")
    before = linear.module.weight.detach().clone()
    solved = wrong(before, how)[message]
    with pytest.raises(Problem, match=rf"a\.layer: .*{message}"):
        prune(linear, {}, 0.5, replace(how, solve=lambda *_: solved))
    assert torch.equal(linear.module.weight, before)


def test_an_unknown_statistic_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "odd.py").write_text('def score(weight, spectrum):\n    """Odd."""\n')
    monkeypatch.setitem(ROOMS, "criterion", replace(ROOMS["criterion"], folder=str(tmp_path)))
    with pytest.raises(Problem, match="criterion 'odd' needs 'spectrum', which nothing provides"):
        recipe("criterion", "odd", "unstructured")


def test_a_released_count_is_checked_from_below_alone(linear):
    """More zeros than the count may be ties; as many, or fewer, are not the released mask."""
    how = recipe("criterion", "magnitude", "unstructured:group=matrix,as_released=true")
    weight = linear.module.weight.detach().clone()
    by_size = weight.abs().flatten().argsort()

    def losing(number):
        keep = torch.ones(320, dtype=torch.bool).index_fill_(0, by_size[:number], False).view(10, 32)
        return replace(how, solve=lambda *_: Solved(weight * keep, keep, 32 * 10))

    for number in (161, 200):
        assert prune(linear, {}, 0.5, losing(number))[1]["zeros"] == number
    for number in (0, 160):
        with pytest.raises(Problem, match=r"a\.layer: its mask does not have .* the sparsity"):
            prune(linear, {}, 0.5, losing(number))


def test_a_methods_as_released_is_the_patterns_too():
    scores = torch.tensor([[3.0, 1, 1, 2, 9, 8, 7, 1]])
    for kind, method, refiner in (
        ("solver", "sparsegpt:as_released={}", None),
        ("criterion", "magnitude", "dsnot:as_released={}"),
    ):
        refined = {flag: refiner and refiner.format(flag) for flag in ("false", "true")}
        for pattern in ("unstructured:group=matrix", "unstructured:group=matrix,as_released=false"):
            ours, theirs = (recipe(kind, method.format(flag), pattern, refined[flag]) for flag in refined)
            assert [int((~how.choose(scores, 0.25)).sum()) for how in (ours, theirs)] == [2, 3], "ties go, too"
            assert theirs.fit({"a": 0.3}, {}, 0.3) == {"a": 0.3}
        own = recipe(kind, method.format("false"), "unstructured:group=matrix,as_released=true", refined["false"])
        assert int((~own.choose(scores, 0.25)).sum()) == 3, "and the pattern's own does not need the method's"


def test_as_released_leaves_ties_of_nm_to_topk():
    scores = torch.tensor([[1.0, 1, 1, 1, 2, 1, 3, 1]])
    ours, theirs = (recipe("solver", f"sparsegpt:as_released={flag}", "2:4") for flag in ("false", "true"))
    gone = scores.view(2, 4).topk(2, dim=1, largest=False).indices
    assert torch.equal(theirs.choose(scores, 0.5).view(2, 4), torch.ones(2, 4).scatter(1, gone, 0).bool())
    assert ours.choose(scores, 0.5).tolist() == [[False, False, True, True, True, False, True, False]]
    with pytest.raises(Problem, match=r"not 0\.25"):
        theirs.choose(scores, 0.25)
    with pytest.raises(Problem, match="do not divide"):
        theirs.choose(scores[:, :6], 0.5)


def narrow(columns=128):
    """A layer so narrow that the released DSnoT runs out of candidates, and its inputs' statistics."""
    torch.manual_seed(0)
    linear = Linear("a.layer", nn.Linear(columns, 24), "decoder", "attention")
    x = torch.randn(400, columns) * torch.rand(columns) * 3 + torch.randn(columns) / 2
    given = {name: kind(columns, x.device) for name, kind in STATISTICS.items()}
    for statistic in given.values():
        statistic.add(x, torch.tensor([80] * 5))
    return linear, {**{name: each.value for name, each in given.items()}, "part": "attention", "layer": "a.layer"}


def test_the_released_dsnot_may_break_the_counts_and_the_row_says_so():
    linear, given = narrow()
    how = recipe("criterion", "wanda", "unstructured", "dsnot:as_released=true")
    keep, row = prune(linear, given, 0.5, how)
    assert keep.sum(dim=1).unique().numel() > 1, "the case is too wide to show anything"
    assert row["fits_pattern"] is False and row["zeros"] == int((~keep).sum())
    assert (linear.module.weight[~keep] == 0).all()
    linear, given = narrow(columns=512)
    assert "fits_pattern" not in prune(linear, given, 0.5, how)[1]


def test_the_clock_waits_for_the_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock(torch.device("cpu"))
    assert not waited
    before = time.perf_counter()
    assert clock(torch.device("cuda:0")) >= before and waited == [torch.device("cuda:0")]


def test_scores_may_need_less_than_the_whole_recipe():
    how = recipe("criterion", "wanda", "unstructured", "dsnot")
    assert how.scoring == ("norm",) and set(how.needs) > {"norm"}
    assert recipe("solver", "sparsegpt", "unstructured").scoring == ()
