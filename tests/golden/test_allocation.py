"""The rates of the authors' released code on inputs that are rebuilt here; each file says which code made it.

Ours are the same to 1e-9 for OWL and to the last bit for ATP; RMI and AlphaPruning are compared to 1e-6, for SciPy's
SLSQP and LAPACK's singular values differ between their builds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.pruning import allocation
from harness.pruning.allocation import alphapruning, atp, atp_search, er, lamp, owl, rmi

SHAPES = {"q": (48, 48), "up": (96, 48), "down": (48, 96)}


def golden(name):
    return json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf8"))


def layers_of(blocks):
    return {
        f"{block}.{name}": allocation.Layer(shape, block, "attention" if name == "q" else "feed_forward")
        for block in range(blocks)
        for name, shape in SHAPES.items()
    }


def weights_of(layers, seed):
    """Student-t weights, heavier tails and a stronger common direction in some blocks than in others."""
    rng, found = np.random.default_rng(seed), {}
    for name, layer in layers.items():
        out, columns = layer.shape
        noise = rng.standard_t(3 + 2 * ((5 * layer.block) % 7), layer.shape)
        common = rng.standard_normal((out, 8)) @ rng.standard_normal((8, columns))
        found[name] = torch.from_numpy((noise + common * ((3 * layer.block) % 5) / 8).astype(np.float32))
    return found


def inputs_of(layers, seed, sequences=4, tokens=8):
    """Inputs [sequences, tokens, in] of every layer, some columns much larger than the rest."""
    rng = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(
            (rng.standard_normal((sequences, tokens, layer.shape[1])) * rng.lognormal(0, 0.6, layer.shape[1])).astype(
                np.float32
            )
        )
        for name, layer in layers.items()
    }


def features_of(blocks, seed, change, sequences=12, tokens=4, width=16):
    """Inputs [sequences, tokens, width] of every block, each the one before and something of its own."""
    rng = np.random.default_rng(seed)
    now, found = rng.standard_normal((sequences, tokens, width)), []
    for block in range(blocks):
        found.append(torch.from_numpy(now.astype(np.float32)))
        now = now + change * (1 + block % 3) * rng.standard_normal(now.shape)
    return found


def kernels_of(features):
    return {block: each.flatten(1) @ each.flatten(1).T for block, each in enumerate(features)}


def norms_of(inputs):
    return {name: x.flatten(0, 1).square().mean(0).sqrt() for name, x in inputs.items()}


def cases(name):
    file = golden(name)
    return [pytest.param(case, id=" ".join(f"{k}={v}" for k, v in case["given"].items())) for case in file["cases"]]


def blocks_of(layers, rates):
    by_block = {layer.block: rates[name] for name, layer in layers.items()}
    assert all(rates[name] == by_block[layer.block] for name, layer in layers.items())
    return [by_block[block] for block in sorted(by_block)]


@pytest.mark.parametrize("case", cases("owl"))
def test_owl(case):
    given, layers = case["given"], layers_of(case["given"]["blocks"])
    weights, norms = weights_of(layers, given["seed"]), norms_of(inputs_of(layers, given["seed"] + 1))
    shares = owl.outliers(layers, weights, norms, given["outlier"])
    assert list(shares.values()) == pytest.approx(case["outliers"], abs=1e-9)
    options = {"width": given["width"], "outlier": given["outlier"]}
    rates = owl.allocate(layers, given["sparsity"], weights, norms, **options)
    assert blocks_of(layers, rates) == pytest.approx(case["rates"], abs=1e-9)


@pytest.mark.parametrize("case", cases("alphapruning"))
def test_alphapruning(case):
    given, layers = case["given"], layers_of(case["given"]["blocks"])
    options = {name: given[name] for name in ("epsilon", "xmin", "per")}
    rates = alphapruning.allocate(layers, given["sparsity"], weights_of(layers, given["seed"]), **options)
    assert list(rates.values()) == pytest.approx(case["rates"], abs=1e-6)


@pytest.mark.parametrize("case", cases("rmi"))
def test_rmi(case):
    given, layers = case["given"], layers_of(case["given"]["blocks"])
    kernels = kernels_of(features_of(given["blocks"], given["seed"], given["change"]))
    rates = rmi.allocate(layers, given["sparsity"], kernels, beta=given["beta"])
    assert blocks_of(layers, rates) == pytest.approx(case["rates"], abs=1e-6)


@pytest.mark.parametrize("case", cases("atp"))
def test_atp(case):
    given, layers = case["given"], layers_of(case["given"]["blocks"])
    low, high = atp.limits(layers, given["sparsity"])
    assert atp_search.grid(high, 0.002, None) == case["trials"]
    for beta, rates in zip(case["trials"], case["rates"], strict=True):
        assert low < 0 < beta <= high
        assert blocks_of(layers, atp.allocate(layers, given["sparsity"], beta=beta)) == rates


@pytest.mark.parametrize("case", cases("lamp"))
def test_lamp_and_er(case):
    given, layers = case["given"], layers_of(case["given"]["blocks"])
    weights, sizes = weights_of(layers, given["seed"]), [layer.size for layer in layers.values()]
    rates = list(lamp.allocate(layers, given["sparsity"], weights).values())
    zeros, theirs = ([rate * size for rate, size in zip(each, sizes, strict=True)] for each in (rates, case["lamp"]))
    assert zeros == pytest.approx(theirs, abs=0.02)
    kept = [
        (1 - rate) * size for rate, size in zip(er.allocate(layers, given["sparsity"]).values(), sizes, strict=True)
    ]
    assert kept == pytest.approx([(1 - rate) * size for rate, size in zip(case["er"], sizes, strict=True)], abs=0.51)
