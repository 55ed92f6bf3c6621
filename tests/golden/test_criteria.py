"""Masks of the authors' released code, made outside the repository, against ours on the same inputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.pruning.patterns import nm, unstructured
from harness.pruning.statistics import STATISTICS
from harness.rooms import ROOMS, bind

FOLDER = Path(__file__).parent
SEQUENCES, TOKENS = 4, 32
CRITERIA = {
    "magnitude": "magnitude",
    "wanda": "wanda",
    "ria": "ria",
    "gblm": f"gblm:alpha={100 * (SEQUENCES / TOKENS) ** 0.5}",  # the paper's 100, for its sums
    "pruner_zero": "pruner_zero",
    "sparsegpt_start": "sparsegpt",
}
CASES = [(file, case) for file in CRITERIA for case in json.loads((FOLDER / f"{file}.json").read_text())["cases"]]


def inputs(case):
    """The weight and what criteria are given, built as the golden file says."""
    generator, columns = np.random.default_rng(case["seed"]), case["columns"]
    weight = generator.standard_normal((case["rows"], columns)).astype(np.float32)
    x = generator.standard_normal((SEQUENCES, TOKENS, columns)) * generator.uniform(0.1, 3, columns)
    x = x.astype(np.float32)
    gradient = generator.exponential(size=weight.shape).astype(np.float32)
    digest = hashlib.sha256(weight.tobytes() + x.tobytes() + gradient.tobytes()).hexdigest()
    assert digest == case["inputs"], "numpy draws other inputs here than those the masks were made from"
    dtype = getattr(torch, case["dtype"])
    rows = torch.from_numpy(x).to(dtype).view(-1, columns)
    given = {"gradient_norm": torch.from_numpy(gradient)}
    for name in ("norm", "gram"):
        statistic = STATISTICS[name](columns, rows.device)
        statistic.add(rows, torch.tensor([TOKENS] * SEQUENCES))
        given[name] = statistic.value
    return torch.from_numpy(weight).to(dtype), given


def choose(file, case, *, as_released):
    """Our mask of a case, compared in the paper's group."""
    method = ROOMS["criterion"].method(CRITERIA[file].partition(":")[0])
    weight, given = inputs(case)
    scores = bind("criterion", CRITERIA[file])(weight, *(given[need] for need in method.needs if need != "weight"))
    if case["m"]:
        return nm.choose(scores, case["sparsity"], n=case["n"], m=case["m"])
    return unstructured.choose(scores, case["sparsity"], group=method.constants["GROUP"], as_released=as_released)


def named(case):
    pattern = f"{case['n']}of{case['m']}" if case["m"] else case["sparsity"]
    return f"{case['rows']}x{case['columns']}-{case['dtype']}-{pattern}"


@pytest.mark.parametrize(("file", "case"), CASES, ids=[f"{file}-{named(case)}" for file, case in CASES])
def test_the_released_mask(file, case):
    keep = choose(file, case, as_released=True)
    assert int((~keep).sum()) == case["zeros"]
    assert hashlib.sha256(np.packbits(keep.numpy()).tobytes()).hexdigest() == case["keep"]


@pytest.mark.parametrize(
    ("file", "case"),
    [pair for pair in CASES if not pair[1]["m"]],
    ids=[f"{file}-{named(case)}" for file, case in CASES if not case["m"]],
)
def test_our_count_is_exact_and_differs_from_theirs_in_nothing_else(file, case):
    ours, theirs = choose(file, case, as_released=False), choose(file, case, as_released=True)
    cents, size = round(case["sparsity"] * 100), case["rows"] * case["columns"]
    by_row = ROOMS["criterion"].method(CRITERIA[file].partition(":")[0]).constants["GROUP"] == "row"
    exact = case["rows"] * (case["columns"] * cents // 100) if by_row else size * cents // 100
    assert int((~ours).sum()) == exact
    assert not (theirs & ~ours).any() or by_row  # theirs prunes more
    if by_row:  # int(100 * 0.29) is 28
        missed = case["columns"] * cents % 100 == 0 and int(case["columns"] * case["sparsity"]) < exact / case["rows"]
        assert int((ours != theirs).sum()) == (case["rows"] if missed else 0)
