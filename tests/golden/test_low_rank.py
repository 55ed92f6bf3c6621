"""Outputs, gradients and merged weights of the authors' low-rank and scaling layers, on inputs rebuilt here."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.tuning.bits import Bits
from harness.tuning.methods import lors, sparse_peft, spp


def cases(name):
    return json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf8"))["cases"]


def inputs_of(case):
    """x, W (pruned), M, A, B, the gradient of y, and a gradient of W."""
    rng = np.random.default_rng(case["seed"])
    rows, columns, rank = case["rows"], case["columns"], case.get("drawn_rank", case["rank"])

    def draw(*shape):
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    weight = 0.05 * draw(rows, columns)
    keep = torch.from_numpy(rng.random((rows, columns)) >= case["sparsity"])
    x = draw(*case["lead"], columns).requires_grad_()
    a, b = draw(rank, columns) / math.sqrt(columns), 0.1 * draw(rows, rank)
    trained = {"lora_A": a.requires_grad_(), "lora_B": b.requires_grad_()}
    return x, weight * keep, keep, trained, draw(*case["lead"], rows), draw(rows, columns)


def check(case, name, adapt, merge, x, weight, keep, trained, gradient):
    """Compares a method with what the authors' layer gave."""
    y = adapt(x, weight, Bits.of(keep), trained)
    dx, *others = torch.autograd.grad(y, (x, *trained.values()), gradient)
    ours = {"y": y, "dx": dx, **dict(zip(trained, others, strict=True)), "merged": merge(weight, keep, trained)}
    for part, value in ours.items():
        theirs = torch.tensor(case[name][part]).view_as(value)
        torch.testing.assert_close(
            value.detach(), theirs, rtol=1e-5, atol=1e-5, msg=lambda m, part=part: f"{part}: {m}"
        )


def options(function, case, *names, **more):
    return partial(function, **{name: float(case[name]) for name in names}, **more)


@pytest.mark.parametrize("case", cases("lors"), ids=lambda case: str(case["seed"]))
def test_lors_is_that_of_the_release(case):
    x, weight, keep, trained, gradient, dense = inputs_of(case)
    check(
        case,
        "lors",
        options(lors.adapt, case, "alpha"),
        options(lors.merge, case, "alpha"),
        x,
        weight,
        keep,
        trained,
        gradient,
    )
    torch.manual_seed(case["seed"])
    start = lors.directions(dense, case["rank"])
    theirs = torch.tensor(case["lors"]["start"]).view_as(start)
    torch.testing.assert_close(start * (start * theirs).sum(1, keepdim=True).sign(), theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", cases("lors"), ids=lambda case: str(case["seed"]))
def test_unscaled_sparse_peft_is_the_one_beside_lors(case):
    adapt, merge = partial(sparse_peft.adapt, training=True, scaled=False), partial(sparse_peft.merge, scaled=False)
    check(case, "sqft", adapt, merge, *inputs_of(case)[:5])


@pytest.mark.parametrize("case", cases("sparse_peft"), ids=lambda case: str(case["seed"]))
def test_sparse_peft_is_that_of_the_release(case):
    adapt = options(sparse_peft.adapt, case, "alpha", training=True)
    check(case, "sparse_peft", adapt, options(sparse_peft.merge, case, "alpha"), *inputs_of(case)[:5])


@pytest.mark.parametrize("case", cases("spp"), ids=lambda case: str(case["seed"]))
def test_spp_is_that_of_the_release(case):
    x, weight, keep, _, gradient, _ = inputs_of(case)
    rng = np.random.default_rng(case["seed"] + 100)
    shapes = {"spp_P": (16, case["columns"]), "spp_q": (case["rows"], 1)}
    drawn = {name: torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()}
    factors = {"spp_P": drawn["spp_P"] / math.sqrt(case["columns"]), "spp_q": 0.1 * drawn["spp_q"]}
    trained = {name: tensor.requires_grad_() for name, tensor in factors.items()}
    adapt = options(spp.adapt, case, "rank", "alpha", training=True)
    check(case, "spp", adapt, options(spp.merge, case, "rank", "alpha"), x, weight, keep, trained, gradient)
