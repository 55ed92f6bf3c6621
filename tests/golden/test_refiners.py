"""The masks of the authors' released DSnoT on inputs that are rebuilt here; `dsnot.json` says which code made it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.problems import Problem
from harness.pruning.criteria import magnitude, sparsegpt, wanda
from harness.pruning.patterns import nm, unstructured
from harness.pruning.refiners import dsnot
from harness.pruning.statistics import STATISTICS

GOLDEN = json.loads((Path(__file__).parent / "dsnot.json").read_text(encoding="utf8"))
CASES = {case["name"]: case for case in GOLDEN["cases"]}
WIDE = sorted(name for name, case in CASES.items() if case["columns"] == 256)


def inputs_of(rows, columns, sequences, tokens, seed):
    """Weights [rows, columns] and inputs [sequences, tokens, columns], correlated and of other means than zero."""
    rng = np.random.default_rng(seed)
    weight = 0.05 * rng.standard_normal((rows, columns))
    x = rng.standard_normal((sequences, tokens, columns))
    x = x + 0.6 * np.roll(x, 1, axis=2) - 0.3 * np.roll(x, 7, axis=2) + 0.5 * rng.standard_normal(columns)
    x = x * rng.uniform(0.2, 3, columns)
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(x.astype(np.float32))


def start(case):
    """The weight, the criterion's mask and scores, and the inputs' statistics of a case."""
    weight, x = inputs_of(case["rows"], case["columns"], 6, 80, case["seed"])
    found = {}
    for name, kind in STATISTICS.items():
        statistic = kind(x.shape[2], x.device)
        statistic.add(x.flatten(0, 1), torch.full((len(x),), x.shape[1]))
        found[name] = statistic.value
    scores = {
        "wanda": lambda: wanda.score(weight, found["norm"]),
        "magnitude": lambda: magnitude.score(weight),
        "sparsegpt": lambda: sparsegpt.score(weight, found["gram"]),
    }[case["start"]]()
    if case["m"]:
        keep = nm.choose(scores, case["sparsity"], n=case["n"], m=case["m"])
    else:
        keep = unstructured.choose(scores, case["sparsity"], group="row")
    return weight, keep, scores, {name: found[name] for name in ("norm", "total", "variance")}


def refined(case, **options):
    weight, keep, scores, given = start(case)
    options = {"power": float(case["power"]), "sign_rule": case["sign_rule"], **options}
    return dsnot.refine(weight, keep, scores, part="attention", period=case["m"] or None, **given, **options)


def released(case):
    bits = np.unpackbits(np.frombuffer(base64.b64decode(case["keep"]), dtype=np.uint8))
    return torch.from_numpy(bits.astype(bool)).view(case["rows"], case["columns"])


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("as_released", [False, True])
def test_masks_are_those_of_the_release_where_candidates_last(name, as_released):
    case = CASES[name]
    keep = released(case)
    assert torch.equal(refined(case, as_released=as_released), keep)
    assert not torch.equal(start(case)[1], keep), "a case in which nothing is swapped shows nothing"


@pytest.mark.parametrize("name", sorted(name for name in CASES if name not in WIDE and CASES[name]["keep"]))
def test_where_they_run_out_the_letter_of_the_release_breaks_the_counts_and_ours_does_not(name):
    case, before = CASES[name], start(CASES[name])[1]
    keep, ours = released(case), refined(case)
    assert torch.equal(refined(case, as_released=True), keep)
    assert not torch.equal(keep.sum(dim=1), before.sum(dim=1)) and torch.equal(ours.sum(dim=1), before.sum(dim=1))


@pytest.mark.parametrize("name", sorted(name for name in CASES if CASES[name]["keep"] is None))
def test_where_the_release_crashes_its_letter_is_a_problem(name):
    with pytest.raises(Problem, match="runs out of weights to swap in cycle"):
        refined(CASES[name], as_released=True)
    assert torch.equal(refined(CASES[name]).sum(dim=1), start(CASES[name])[1].sum(dim=1))
