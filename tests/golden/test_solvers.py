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
from harness.pruning.solvers import alps, sparsegpt

SEQUENCE = 2048
"""Tokens of a sequence in SparseGPT's release: its Hessian is 2 * SEQUENCE times the mean over tokens."""


def cases(name):
    return json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf8"))["cases"]


def inputs_of(rows, columns, dead, seed):
    """Weights [rows, columns] and the mean of x x^T over 600 tokens, [columns, columns], the first `dead` inputs 0."""
    rng = np.random.default_rng(seed)
    weight = 0.05 * rng.standard_normal((rows, columns))
    x = rng.standard_normal((600, columns))
    x = x + 0.6 * np.roll(x, 1, axis=1) - 0.3 * np.roll(x, 7, axis=1) + 0.4 * rng.standard_normal((600, 1))
    x = x * rng.uniform(0.2, 3, columns) * (np.arange(columns) >= dead)
    return torch.from_numpy(weight.astype(np.float32)), torch.from_numpy((x.T @ x / 600).astype(np.float32))


def theirs(case):
    bits = np.unpackbits(np.frombuffer(base64.b64decode(case["keep"]), dtype=np.uint8))
    return torch.from_numpy(bits.astype(bool)).view(case["rows"], case["columns"])


def pattern(case, group):
    """The pattern as `choose`, with the release's count of `score <= threshold` in SparseGPT's slabs."""
    if case["m"]:
        return partial(nm.choose, n=case["n"], m=case["m"])
    if group == "released":
        return lambda scores, sparsity: scores > scores.flatten().sort()[0][int(scores.numel() * sparsity)]
    return partial(unstructured.choose, group=group)


def check_weights(case, weight):
    first = torch.tensor(case["first_row"])
    torch.testing.assert_close(weight[0, weight[0] != 0][: len(first)], first, rtol=1e-4, atol=1e-6)
    assert float(weight.double().norm()) == pytest.approx(case["norm"], rel=1e-5)


@pytest.mark.parametrize("case", cases("sparsegpt"), ids=lambda case: case["name"])
def test_sparsegpt_is_that_of_the_release(case):
    weight, gram = inputs_of(case["rows"], case["columns"], case["dead"], case["seed"])
    options = {name: case[name] for name in ("bits", "symmetric", "scale")}
    solved = sparsegpt.solve(
        weight, gram, pattern(case, "released"), case["sparsity"], case["m"] or None, as_released=True, **options
    )
    assert torch.equal(solved.weight != 0, theirs(case))
    check_weights(case, solved.weight)
    if not case["dead"]:
        ours = sparsegpt.solve(weight, gram, pattern(case, "released"), case["sparsity"], case["m"] or None, **options)
        assert torch.equal(ours.weight != 0, theirs(case)), "without dead inputs the way to the factor does not matter"
        check_weights(case, ours.weight)


@pytest.mark.parametrize("case", cases("alps"), ids=lambda case: case["name"])
def test_alps_is_that_of_the_release(case):
    weight, gram = inputs_of(case["rows"], case["columns"], case["dead"], case["seed"])
    solved = alps.solve(weight, gram, pattern(case, "matrix"), case["sparsity"])
    assert torch.equal(solved.keep, theirs(case))
    check_weights(case, solved.weight)
