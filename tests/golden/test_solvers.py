"""The masks and weights of the authors' released solvers on inputs that are rebuilt here; each file says which code."""

from __future__ import annotations

import base64
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.pruning.patterns import nm, unstructured
from harness.pruning.recipe import recipe
from harness.pruning.solvers import alps, sparsegpt
from harness.pruning.statistics import STATISTICS
from harness.rooms import Choice

SEQUENCE = 2048
"""Tokens of a sequence in the cases whose inputs are no sequences: the Hessian is 2 * SEQUENCE times the mean."""


def cases(name):
    return json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf8"))["cases"]


def inputs_of(rows, columns, dead, seed, tokens=600, size=1.0):
    """Weights [rows, columns] and inputs [tokens, columns], the first `dead` of them 0."""
    rng = np.random.default_rng(seed)
    weight = 0.05 * rng.standard_normal((rows, columns))
    x = rng.standard_normal((tokens, columns))
    x = x + 0.6 * np.roll(x, 1, axis=1) - 0.3 * np.roll(x, 7, axis=1) + 0.4 * rng.standard_normal((tokens, 1))
    x = x * rng.uniform(0.2, 3, columns) * (np.arange(columns) >= dead) * size
    return torch.from_numpy(weight.astype(np.float32)), x


def moments(x):
    return torch.from_numpy((x.T @ x / len(x)).astype(np.float32))


def given_to_sparsegpt(case):
    """The weight and what a recipe is given, from the statistics of real sequences where the case has them."""
    shape = case["rows"], case["columns"], case["dead"], case["seed"]
    if "tokens" not in case:
        weight, x = inputs_of(*shape)
        return weight, {"gram": moments(x), "length": SEQUENCE}
    weight, x = inputs_of(*shape, case["sequences"] * case["tokens"], case["size"])
    found = {name: STATISTICS[name](case["columns"], weight.device) for name in ("gram", "length")}
    for sequence in torch.from_numpy(x.astype(np.float32)).split(case["tokens"]):
        for statistic in found.values():
            statistic.add(sequence, torch.tensor([case["tokens"]]))
    return weight, {name: statistic.value for name, statistic in found.items()}


def theirs(case):
    bits = np.unpackbits(np.frombuffer(base64.b64decode(case["keep"]), dtype=np.uint8))
    return torch.from_numpy(bits.astype(bool)).view(case["rows"], case["columns"])


def check_weights(case, weight):
    first = torch.tensor(case["first_row"])
    torch.testing.assert_close(weight[0, weight[0] != 0][: len(first)], first, rtol=1e-4, atol=1e-6)
    assert float(weight.double().norm()) == pytest.approx(case["norm"], rel=1e-5)


@pytest.mark.parametrize("case", cases("sparsegpt"), ids=lambda case: case["name"])
def test_sparsegpt_is_that_of_the_release(case):
    weight, given = given_to_sparsegpt(case)
    options = {name: case[name] for name in ("bits", "symmetric", "scale")}
    pattern = f"{case['n']}:{case['m']}" if case["m"] else "unstructured"
    how = recipe("solver", Choice("sparsegpt", {"as_released": True, **options}), pattern)
    solved = how.solve(weight, given, case["sparsity"])
    assert torch.equal(solved.weight != 0, theirs(case))
    check_weights(case, solved.weight)
    if not case["dead"]:
        ours = sparsegpt.solve(weight, given["gram"], how.choose, case["sparsity"], case["m"] or None, **options)
        assert torch.equal(ours.weight != 0, theirs(case)), "without dead inputs the way to the factor does not matter"
        check_weights(case, ours.weight)


@pytest.mark.parametrize("case", cases("alps"), ids=lambda case: case["name"])
def test_alps_is_that_of_the_release(case):
    weight, x = inputs_of(case["rows"], case["columns"], case["dead"], case["seed"])
    choose = partial(nm.choose, n=case["n"], m=case["m"]) if case["m"] else partial(unstructured.choose, group="matrix")
    solved = alps.solve(weight, moments(x), choose, case["sparsity"])
    assert torch.equal(solved.keep, theirs(case))
    check_weights(case, solved.weight)
