"""`harness run --processes N` from the command line: more processes than rows, and a kill in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from harness import models
from harness.tuning import session

ROOT = Path(__file__).parents[2]
ENTRY = """
title: Two rows
model: {model}
data: arithmetic:size=60
task: reasoning:max_new_tokens=2
prune: {{criterion: magnitude, sparsity: 0.5}}
tune: {{loss: cross_entropy, steps: 12, lr: 1e-3, rows: 2, batch_size: 2, checkpoint_every: 1}}
evaluate: {{exact_match: {{limit: 1}}}}
baselines: []
seeds: [0]
"""
RUN = ("run", "two", "--scale", "paper", "--results")


@pytest.fixture
def registry(tmp_path, tiny_models, monkeypatch):
    """A folder with one entry, which tunes on two rows for twelve steps, a checkpoint after each."""
    models.save(*tiny_models.tiny("llama"), tmp_path / "model")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "two.yaml").write_text(ENTRY.format(model=tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("HARNESS_RESULTS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def tuned(results: Path) -> tuple[dict, list[float], dict]:
    """Returns the weights, the losses and the report of the one tuned model in a results folder."""
    (folder,) = (results / "artifacts" / "tune").iterdir()
    curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curve] == list(range(1, 13))
    report = json.loads((folder / "tune.json").read_text())
    return load_file(folder / "model.safetensors"), [row["loss"] for row in curve], report


def same(one: tuple, other: tuple) -> bool:
    """Says whether two runs are the same but for rounding, and have the same zeros."""
    zeros = all(((tensor == 0) == (other[0][name] == 0)).all() for name, tensor in one[0].items())
    apart = max(float((tensor - other[0][name]).norm() / tensor.norm()) for name, tensor in one[0].items())
    return zeros and apart < 1e-4 and one[1] == pytest.approx(other[1], rel=1e-4)


def test_more_processes_than_rows_a_step_and_a_killed_run_goes_on(harness, registry, monkeypatch):
    begins = []
    resume = session._resume
    monkeypatch.setattr(session, "_resume", lambda *given: begins.append(resume(*given)) or begins[-1])
    status, _, err = harness(*RUN, registry / "one")
    assert status == 0, err
    status, _, err = harness(*RUN, registry / "three", "--processes", 3)
    assert status == 0, err
    one, three = tuned(registry / "one"), tuned(registry / "three")
    assert same(one, three) and "processes" not in one[2] and three[2]["processes"] == 3

    killed = registry / "killed"
    command = [sys.executable, "-m", "harness.cli", *RUN, str(killed), "--processes", "2"]
    run = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = "artifacts/tune/*.partial/scratch/step-*.pt"
    while not list(killed.glob(checkpoint)):
        assert run.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    run.kill()
    run.wait()
    status, out, _ = harness("status", *RUN[1:], killed)
    assert "interrupted" in out
    status, _, err = harness(*RUN, killed)
    assert status == 0, err
    assert begins[0][0] == 0 < begins[1][0] <= 12  # that of the processes is theirs
    assert same(one, tuned(killed))
    assert not list(killed.rglob("*.partial"))
