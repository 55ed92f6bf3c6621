from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.problems import Problem
from harness.pruning import keep
from harness.tuning import checkpoint, session
from harness.tuning import parts as run_of
from harness.tuning.optimizer import adamw

OPTIONS = {
    "data": "prose",
    "task": "language_modelling",
    "split": "train",
    "rows": None,
    "steps": 7,
    "epochs": None,
    "tokens": None,
    "lr": 2e-3,
    "warmup": 0.3,
    "schedule": "cosine",
    "batch_size": 4,
    "accumulation": 2,
    "weight_decay": 0.01,
    "betas": [0.9, 0.95],
    "clip": 1.0,
    "precision": "fp32",
    "recompute": False,
    "seed": 3,
    "checkpoint_every": 3,
    "method": "masked",
    "loss": "cross_entropy + squarehead:eps=1e-9",
}


@pytest.fixture
def parts(run_parts):
    """A function to fresh parts of a run: what `session.fit` takes by position (but for the folder) and by name."""
    return lambda family="llama", **options: run_parts(family, {**OPTIONS, **options})


def finish(run):
    """Runs a session to its end; returns its progress and what it returned."""
    seen = []
    while True:
        try:
            seen.append(next(run))
        except StopIteration as end:
            return seen, end.value


def same(a, b) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_a_run_reports_every_step_and_sums_up(parts, tmp_path):
    given, named = parts()
    seen, (curve, summary, _) = finish(session.fit(*given, tmp_path, **named))
    model, keeps = given[0], named["keeps"]
    assert [(p.done, p.total) for p in seen] == [(i, 7) for i in range(1, 8)]
    assert set(curve[0]) == {"step", "loss", "cross_entropy", "squarehead", "lr", "grad_norm"}
    assert set(seen[0].values) == set(curve[0]) - {"step"} | {"samples_per_second", "tokens_per_second"}
    assert [row["lr"] for row in curve[:3]] == pytest.approx([0, 1e-3, 2e-3])  # 0.3 of 7 steps is 2 of warm-up
    pruned = sum(int((~k).sum()) for k in keeps.values())
    total = sum(p.numel() for p in model.parameters())
    assert (summary["parameters"], summary["trained_parameters"]) == (total, total - pruned)
    assert summary["steps"] == 7 and summary["epochs"] == 7 / 3 and summary["seconds"] > 0
    assert len(summary["teacher_mean_square"]["decoder"]) == 4 + 1
    keep.verify(model, keeps)
    assert not model.training


def test_the_same_seed_gives_the_same_bits_and_another_does_not(parts, tmp_path):
    ends = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        given, named = parts(seed=seed)
        torch.rand(len(name))
        _, (curve, _, _) = finish(session.fit(*given, tmp_path / name, **named))
        ends[name] = (given[0], curve)
    assert same(ends["a"][0], ends["b"][0]) and ends["a"][1] == ends["b"][1]
    assert not same(ends["a"][0], ends["c"][0])


@pytest.mark.parametrize("family, stop, precision", [("llama", 3, "fp32"), ("llama", 5, "bf16"), ("t5", 2, "fp32")])
def test_a_closed_run_goes_on_to_the_same_bits(parts, tmp_path, family, stop, precision):
    given, named = parts(family, precision=precision)
    whole = given[0]
    _, (curve, _, _) = finish(session.fit(*given, tmp_path / "whole", **named))
    given, named = parts(family, precision=precision)
    run = session.fit(*given, tmp_path / "cut", **named)
    for _ in range(stop):
        next(run)
    run.close()
    assert checkpoint.newest(tmp_path / "cut").name.startswith(f"step-{stop:08d}")
    given, named = parts(family, precision=precision)
    seen, (resumed, _, _) = finish(session.fit(*given, tmp_path / "cut", **named))
    assert [p.done for p in seen] == list(range(stop + 1, 8))
    assert same(whole, given[0]) and resumed == curve


def test_ctrl_c_ends_the_step_leaves_a_checkpoint_and_is_raised(parts, tmp_path):
    given, named = parts()
    run = session.fit(*given, tmp_path, **named)
    next(run)
    os.kill(os.getpid(), signal.SIGINT)  # held: the step in hand is finished first
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert checkpoint.newest(tmp_path).name.startswith("step-00000002")


def test_a_diverged_run_names_the_step_and_keeps_the_last_good_checkpoint(parts, tmp_path):
    given, named = parts()
    run = session.fit(*given, tmp_path, **named)
    for _ in range(4):
        next(run)
    with torch.no_grad():
        given[0].model.norm.weight[0] = float("nan")
    with pytest.raises(Problem, match=r"(?s)diverged at step 5: cross_entropy is nan.*step-00000003"):
        next(run)
    model = parts()[0][0]
    session.attach.attach(model, named["keeps"], "masked")
    step, notes = checkpoint.load(checkpoint.newest(tmp_path), model, adamw(model, lr=1))
    assert step == 3 and len(notes["curve"]) == 3
    keep.verify(model, named["keeps"])


def test_a_damaged_checkpoint_is_refused(parts, tmp_path):
    given, named = parts()
    run = session.fit(*given, tmp_path, **named)
    next(run)
    run.close()
    path = checkpoint.newest(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    given, named = parts()
    with pytest.raises(Problem, match="damaged"):
        next(session.fit(*given, tmp_path, **named))


def test_lost_zeros_are_noticed_at_the_checkpoint(parts, tmp_path, monkeypatch):
    given, named = parts()
    plain = lambda x, weight, keep, trained: torch.nn.functional.linear(x, weight)  # noqa: E731
    monkeypatch.setattr(session.attach.rooms.load("method", "masked"), "adapt", plain)
    with pytest.raises(Problem, match=r"(?s)pruned weights are not zero.*there was no checkpoint yet"):
        finish(session.fit(*given, tmp_path, **named))
    assert checkpoint.newest(tmp_path) is None, "a checkpoint without its zeros is no good one"


def test_dense_runs_need_no_mask_and_no_teacher(parts, tmp_path):
    given, _ = parts(loss="cross_entropy")
    _, (curve, summary, _) = finish(session.fit(*given, tmp_path))
    assert "teacher_mean_square" not in summary and "squarehead" not in curve[0]
    assert summary["parameters"] == summary["trained_parameters"]


def test_after_bf16_the_model_is_a_plain_fp32_model_again(parts, tmp_path):
    given, named = parts(precision="bf16", steps=2)
    finish(session.fit(*given, tmp_path, **named))
    model = given[0]
    plain, ids = parts()[0][0].eval(), torch.tensor([[5, 6]])
    plain.load_state_dict(model.state_dict())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model(input_ids=ids).logits, plain(input_ids=ids).logits)  # no autocast is left


def test_no_examples_are_a_problem(parts, tmp_path):
    (model, _, collate, options), named = parts()
    with pytest.raises(Problem, match="prose: there is no example"):
        next(session.fit(model, [], collate, options, tmp_path, **named))


def test_epochs_become_steps(parts, tmp_path):
    given, named = parts(steps=None, epochs=2.0)
    seen, _ = finish(session.fit(*given, tmp_path, **named))
    assert seen[-1].done == 6  # 10 rows in batches of 4 are 3 steps


@pytest.mark.parametrize("warmup, rates", [(0, [1, 0.5]), (1, [0, 1]), (0.5, [0, 1])])
def test_a_warmup_is_steps_or_a_fraction(warmup, rates):
    rate = session.learning_rate({"lr": 1.0, "schedule": "linear", "warmup": warmup}, 2)
    assert [rate(step) for step in range(2)] == rates


def test_a_warmup_longer_than_the_epochs_names_both(parts, tmp_path):
    given, named = parts(steps=None, epochs=2.0, warmup=7)
    with pytest.raises(Problem, match=r"warmup: 7 steps of warm-up are more than the 6 steps.*\n.*epochs: 2\.0"):
        next(session.fit(*given, tmp_path, **named))


@pytest.mark.parametrize(("method", "passes"), [("lors:samples=4", 1), ("lors:init=kaiming", 0), ("masked", 0)])
def test_gradients_are_taken_where_a_method_looks_at_them(parts, tmp_path, monkeypatch, method, passes):
    taken = []
    take = run_of.mean_gradients
    monkeypatch.setattr(run_of, "mean_gradients", lambda *given: taken.append(1) or take(*given))
    given, named = parts(method=method, steps=1, warmup=0)
    keep.apply(given[0], named["keeps"])
    _, (_, summary, _) = finish(session.fit(*given, tmp_path, **named))
    assert len(taken) == passes and ("gradient" in summary) == bool(passes)


def test_frozen_parameters_are_not_counted_as_trained(parts, tmp_path):
    given, _ = parts(loss="cross_entropy", steps=1, warmup=0)
    given[0].model.norm.weight.requires_grad_(False)
    _, (_, summary, _) = finish(session.fit(*given, tmp_path))
    assert summary["parameters"] - summary["trained_parameters"] == given[0].model.norm.weight.numel()


SCRIPT = """
import json, sys, time, torch
from pathlib import Path
sys.path.insert(0, {here!r})
import conftest
from harness.tuning import session
torch.set_num_threads({threads})
(model, *given), named = conftest.run_parts("llama", json.loads({options!r}))
for progress in session.fit(model, *given, Path({scratch!r}), **named):
    if progress.done == 5:
        print("5", flush=True)
        time.sleep(60)
"""


def test_a_run_killed_in_the_middle_goes_on_to_the_same_bits(parts, tmp_path):
    options = json.dumps({**OPTIONS, "steps": 7})
    script = SCRIPT.format(
        here=str(Path(__file__).parent), options=options, scratch=str(tmp_path / "cut"), threads=torch.get_num_threads()
    )
    environment = {**os.environ, "HARNESS_DEVICE": "cpu"}
    killed = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    given, named = parts()
    whole = given[0]
    _, (curve, _, _) = finish(session.fit(*given, tmp_path / "whole", **named))
    assert killed.stdout.readline().strip() == "5"
    killed.kill()
    killed.communicate()
    given, named = parts()
    seen, (resumed, _, _) = finish(session.fit(*given, tmp_path / "cut", **named))
    assert [p.done for p in seen] == [4, 5, 6, 7]  # from the checkpoint of step 3
    assert same(whole, given[0]) and resumed == curve
