"""Two processes against one: the same losses and weights but for rounding, under DDP and FSDP2, on CPUs (gloo).

The tolerance is 1e-5: of a tensor's difference relative to its norm, of the curve relative to each value. Single
weights may differ more, since AdamW's first steps divide tiny gradients, and their rounding, by themselves.

In bf16 each process rounds the products of its own rows, as one process does those of all: two differ from one by about
half of what bf16 differs from fp32. DDP and FSDP round the same rows and add in fp32, so that a first step tells apart
whether a parameter, a gradient or a sum of them lay in bf16: that is 1e-3 and more, and they agree to 1e-6.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
from pathlib import Path

import pytest
import torch

from harness.problems import Problem
from harness.runs import processes
from harness.runs.job import Job
from harness.runs.processes import Processes
from harness.spec.sections import Prune, Tune
from harness.tuning import checkpoint

FIVE = Tune.model_validate(
    {
        "data": "prose",
        "task": "language_modelling",
        "steps": 5,
        "lr": 2e-3,
        "warmup": 0.3,
        "schedule": "cosine",
        "batch_size": 4,
        "accumulation": 2,
        "weight_decay": 0.01,
        "betas": [0.9, 0.95],
        "clip": 1.0,
        "seed": 3,
        "checkpoint_every": 3,
        "loss": "cross_entropy + squarehead:eps=1e-9",
    }
).model_dump(mode="json")
CASES = {
    "masked": FIVE,
    "adapter": {**FIVE, "method": "lora", "clip": 0.05},
    "evolving": {**FIVE, "method": "seft", "loss": "cross_entropy"},
    "encoder-decoder": {**FIVE, "family": "t5"},
    "last step of one row": {**FIVE, "examples": 9, "steps": 3},
    "shares with nothing to score": {**FIVE, "unscored": [0, 1, 3, 4, 6]},
    "recompute": {**FIVE, "recompute": True},
    "hidden states alone": {**FIVE, "loss": "squarehead"},
}
METHODS = ("lors:rank=4,samples=8", "spp", "sparse_peft:rank=4", "losa:rank=4,dropout=0.0", "lora_star:rank=4")
METHODS += ("spiel:interval=2,window=1",)
CASES |= {method: {**FIVE, "loss": "cross_entropy", "method": method, "steps": 3} for method in METHODS}


def ramp(criterion: str = "wanda", allocation: str = "uniform", **section) -> dict:
    """The options of a run that prunes while it trains."""
    given = {"data": "prose", "task": "language_modelling", "sparsity": 0.6}
    prune = Prune.model_validate({**given, "criterion": criterion, "allocation": allocation})
    return {**FIVE, "ramp": "cubic:steps=2", "prune": prune.model_dump(mode="json"), **section}


RAMPS = {
    "ramp": ramp(restart=True),
    "ramp of a branch, with ranks": ramp(allocation="rmi", method="losa:rank=4,mean=3.0,dropout=0.0", recompute=True),
    "ramp by the weights alone": ramp("magnitude", family="t5", method="sparse_peft:rank=4,dropout=0.0"),
    "ramp over all scores": ramp(allocation="owl", method="masked"),
    "ramp with trials": ramp(allocation="atp_search:trials=2", method="spp:dropout=0.0"),
}
CASES |= RAMPS
ROUNDED = {name: {**CASES[name], "precision": "bf16"} for name in ("masked", "adapter")}
BEGUN = {name: {**options, "steps": 1} for name, options in ROUNDED.items()}
RUNS = CASES | {f"bf16 {n}": o for n, o in ROUNDED.items()} | {f"a step in bf16 of {n}": o for n, o in BEGUN.items()}


@pytest.fixture(scope="module", autouse=True)
def place():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DEVICE", "cpu")
        patch.syspath_prepend(str(Path(__file__).parent))
        yield


def jobs(folder: Path, cases: dict) -> Job:
    for name in ("folder", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Job({"do": "fit", "cases": cases}, {}, folder / "folder", folder / "scratch")


def together(folder: Path, cases: dict, parallel: str) -> dict:
    for _ in processes.run("several_stage", jobs(folder, cases), Processes(2, parallel)):
        pass
    return torch.load(folder / "folder" / "done.pt", weights_only=False)


def alone(folder: Path, cases: dict) -> dict:
    for _ in importlib.import_module("several_stage").run(jobs(folder, cases)):
        pass
    return torch.load(folder / "folder" / "done.pt", weights_only=False)


def apart(one, other) -> float:
    """The largest relative difference of two runs' tensors and curves."""
    pairs = [(a, other[0][name]) for name, a in one[0].items() if a.is_floating_point()]
    weights = [float((a - b).norm() / a.norm().clamp(min=1e-9)) for a, b in pairs]
    rows = [(row, other[2][number]) for number, row in enumerate(one[2])]
    curve = [abs(a - b[key]) / max(abs(a), 1e-9) for row, b in rows for key, a in row.items()]
    return max(*weights, *curve)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return alone(tmp_path_factory.mktemp("one"), RUNS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A function from how the model lies to the runs of two processes, made once."""
    return functools.cache(lambda parallel: together(tmp_path_factory.mktemp(parallel), RUNS, parallel))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_do_what_one_does(single, pair, parallel):
    both = pair(parallel)
    found = {name: apart(single[name], both[name]) for name in CASES}
    assert max(found.values()) < 1e-5, found
    assert {run[1] for run in both.values()} == {"LlamaForCausalLM", "T5ForConditionalGeneration"}
    assert all((run[3]["processes"], run[3]["parallel"]) == (2, parallel) for run in both.values())
    same = ("steps", "trained_parameters", "parameters")
    assert all(run[3][key] == single[name][3][key] for name, run in both.items() for key in same)
    for name in RAMPS:
        masks, reached = single[name][4], [row["reached"] for row in single[name][3]["prunings"]]
        assert all(torch.equal(mask, both[name][4][layer]) for layer, mask in masks.items()), name
        assert [row["reached"] for row in both[name][3]["prunings"]] == reached and reached[-1] > 0.59


@pytest.mark.parametrize("name", ROUNDED)
def test_in_bf16_two_processes_differ_from_one_by_rounding_alone(single, pair, name):
    ddp, fsdp = pair("ddp"), pair("fsdp")
    begun, rounded = f"a step in bf16 of {name}", f"bf16 {name}"
    assert apart(ddp[begun], fsdp[begun]) < 1e-5
    for both in (ddp, fsdp):
        assert 0 < apart(single[rounded], both[rounded]) < apart(single[rounded], single[name])


@pytest.mark.parametrize("pruning", [False, True])
def test_a_ramp_that_was_shared_out_and_stopped_goes_on_to_the_same_bits(pair, tmp_path, pruning):
    """Stopped in a step, with a checkpoint of it, or in the second pruning, with that of the first."""
    cases = {"ramp": RAMPS["ramp"]}
    steps = processes.run("several_stage", jobs(tmp_path / "cut", cases), Processes(2, "fsdp"))
    next(p for p in steps if p.unit == "step")
    if pruning:
        next(p for p in steps if p.unit == "block")
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        for _ in steps:
            pass
    assert checkpoint.newest(tmp_path / "cut" / "scratch" / "ramp") is not None
    whole, resumed = pair("fsdp")["ramp"], together(tmp_path / "cut", cases, "fsdp")["ramp"]
    assert all(torch.equal(value, resumed[0][name]) for name, value in whole[0].items()) and whole[2] == resumed[2]
    assert all(torch.equal(mask, resumed[4][name]) for name, mask in whole[4].items())


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_stopped_run_goes_on_to_the_same_bits_in_two_processes_and_to_the_same_values_in_one(tmp_path, parallel):
    cases = {"run": FIVE}
    whole = together(tmp_path / "whole", cases, parallel)["run"]
    steps = processes.run("several_stage", jobs(tmp_path / "cut", cases), Processes(2, parallel))
    next(steps)
    os.kill(os.getpid(), signal.SIGINT)  # the parent's, as from a terminal
    with pytest.raises(KeyboardInterrupt):
        for _ in steps:
            pass
    kept = checkpoint.newest(tmp_path / "cut" / "scratch" / "run")
    assert 1 <= int(kept.name.split("-")[1].split(".")[0]) < 5
    (tmp_path / "one" / "scratch" / "run").mkdir(parents=True)
    (tmp_path / "one" / "scratch" / "run" / kept.name).write_bytes(kept.read_bytes())
    resumed = together(tmp_path / "cut", cases, parallel)["run"]
    assert all(torch.equal(value, resumed[0][name]) for name, value in whole[0].items()) and whole[2] == resumed[2]
    assert apart(whole, alone(tmp_path / "one", cases)["run"]) < 1e-5


def test_a_loss_that_leaves_parameters_out_is_refused_by_ddp(tmp_path):
    cases = {"run": {**FIVE, "loss": "squarehead:final=block"}}
    with pytest.raises(Problem, match=r"does not depend on model\.norm\.weight"):
        together(tmp_path, cases, "ddp")


def test_a_micro_batch_is_dealt_out_and_one_that_is_too_small_is_given_to_all():
    from harness.tuning.batches import batches

    of = batches(list(range(9)), sorted, batch_size=4, micro_batch=2, seed=0)
    for step, dealt in ((0, True), (1, True), (2, False)):
        whole, shares = of(step), [of(step, process, 2) for process in (0, 1)]
        together = [sorted([*a, *b]) for a, b in zip(*shares, strict=True)]
        assert together == (whole if dealt else [[*part, *part] for part in whole])
