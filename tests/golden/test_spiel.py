"""Positions, values and moments of SpIEL's released selector and optimiser on inputs that are rebuilt here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.tuning.aged import AgedAdamW
from harness.tuning.methods import _exchange, spiel

GOLDEN = json.loads((Path(__file__).parent / "spiel.json").read_text(encoding="utf8"))


def start(case):
    """The generator, the weight [rows, columns], where it should go, the curvature, and the first positions."""
    rng = np.random.default_rng(case["seed"])
    shape = (case["rows"], case["columns"])
    weight, target = (rng.standard_normal(shape) for _ in range(2))
    curve = rng.uniform(0.1, 2, shape)
    places = np.sort(rng.permutation(weight.size)[: case["number"]])
    arrays = (torch.from_numpy(a.astype(np.float32)) for a in (weight, target, curve))
    return rng, *arrays, torch.from_numpy(places.astype(np.int32))


def gradient(rng, whole, target, curve, micro):
    """The gradient of a micro-batch: of a quadratic, with noise."""
    noise = torch.from_numpy(rng.standard_normal(whole.shape).astype(np.float32))
    return (curve * (whole - target) + noise) / micro


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_spiel_is_that_of_the_release(case):
    rng, weight, target, curve, places = start(case)
    values = torch.nn.Parameter(torch.zeros(case["number"]))
    trained = {"values": values, "held": torch.ones_like(places, dtype=torch.bool), **_exchange.tensors(places)}
    keep = torch.ones(weight.shape, dtype=torch.bool)
    optimizer = AgedAdamW([values], lr=case["lr"], weight_decay=case["weight_decay"])
    options = {name: case[name] for name in ("interval", "window", "drop", "policy")}
    rounds = []
    for step in range(1, case["steps"] + 1):
        for _ in range(case["micro"]):
            whole = spiel.merge(weight, keep, trained)
            slope = gradient(rng, whole, target, curve, case["micro"])
            spiel.adapt(torch.eye(case["columns"]), weight, keep, trained).backward(slope.T)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            spiel.evolve(weight, keep, trained, {"values": optimizer.state[values]}, step, case["steps"], **options)
        if step % case["interval"] == case["window"]:
            rounds.append({"step": step, "indices": trained["indices"].tolist()})
    assert rounds == [{k: r[k] for k in ("step", "indices")} for r in case["rounds"]]
    state = optimizer.state[values]
    assert state["age"].tolist() == case["age"]
    torch.testing.assert_close(values.data, torch.tensor(case["values"]), rtol=1e-5, atol=1e-6)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(state[name], torch.tensor(case[name]), rtol=2e-5, atol=1e-6)
