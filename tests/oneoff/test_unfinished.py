"""A `harness tune` that is stopped: what it leaves, and what the same command makes of it."""

from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console

from harness import models, oneoff, rooms
from harness.oneoff import unfinished
from harness.pruning import keep
from harness.runs import lease

TEXTS = ["Once upon a time there was a cat. It sat on a mat and slept."] * 3


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """The folder of a pruned tiny llama with its mask."""
    folder = tmp_path_factory.mktemp("sparse")
    model, processor = rooms.load("model", "llama").tiny(TEXTS, seed=0)
    keeps = {x.name: torch.rand(x.module.weight.shape) < 0.5 for b in models.blocks(model) for x in b.linears}
    keep.apply(model, keeps)
    models.save(model, processor, folder)
    keep.save(folder, keeps)
    return folder


@pytest.fixture
def tune(harness, sparse, tmp_path):
    """A function that tunes to a folder for four steps, by the options given."""
    data = tmp_path / "ids.jsonl"
    rows = torch.randint(4, 60, (6, 12), generator=torch.Generator().manual_seed(0)).tolist()
    data.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
    fast = ("--steps", 4, "--batch-size", 2, "--data", data)
    return lambda out, *more, lr="1e-3": harness("tune", sparse, "--out", tmp_path / out, *fast, "--lr", lr, *more)


@pytest.fixture
def stopped(monkeypatch):
    """A function that makes the next command end after so many steps, as by what is raised."""

    def after(steps, error):
        def follow(run, title, console, whole=oneoff.follow):
            monkeypatch.setattr(oneoff, "follow", whole)
            try:
                for _ in range(steps):
                    next(run)
                raise error
            finally:
                run.close()

        monkeypatch.setattr(oneoff, "follow", follow)

    return after


def left(tmp_path, out="out"):
    return sorted(path for path in tmp_path.iterdir() if path.name.startswith(f".{out}."))


@pytest.mark.parametrize(
    ("error", "status", "more"),
    [(KeyboardInterrupt(), 2, ()), (SystemExit(143), 143, ()), (KeyboardInterrupt(), 2, ("--mask-from-zeros",))],
)
def test_the_same_command_goes_on_to_the_same_bytes(tune, stopped, tmp_path, error, status, more):
    assert tune("whole", *more)[0] == 0
    (tmp_path / "out").mkdir()  # an empty one may be there
    stopped(3, error)
    found, out, err = tune("out", *more)
    (work,) = left(tmp_path)
    assert found == status and f"its checkpoint is kept: {unfinished.kept(work)}" in out + err
    assert "the same command goes on from there" in out + err and not any((tmp_path / "out").iterdir())
    found, out, err = tune("out", *more)
    assert found == 0 and "goes on from" in out and "step-00000003" in out, err
    for file in ("model.safetensors", "curve.jsonl", "keep.safetensors"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert left(tmp_path) == []


def test_other_settings_begin_afresh_and_say_so(tune, stopped, tmp_path):
    assert tune("whole", lr="1e-2")[0] == 0
    stopped(3, KeyboardInterrupt())
    tune("out")
    found, out, err = tune("out", lr="1e-2")
    assert found == 0 and "begins afresh" in out and "goes on" not in out, err
    assert (tmp_path / "out" / "curve.jsonl").read_bytes() == (tmp_path / "whole" / "curve.jsonl").read_bytes()


def test_nothing_stays_of_work_without_a_checkpoint(tune, stopped, tmp_path):
    stopped(0, KeyboardInterrupt())
    found, _, err = tune("deep/out")
    assert found == 2 and "nothing was written" in err and not (tmp_path / "deep").exists()


def test_two_commands_do_not_work_on_one_folder(tune, stopped, tmp_path):
    stopped(3, KeyboardInterrupt())
    tune("out")
    (work,) = left(tmp_path)
    held = lease.take(work)
    found, _, err = tune("out")
    held.release()
    assert found == 2 and "another command is at work on this folder" in err and unfinished.kept(work)


def test_what_a_killed_process_left_of_the_settings_goes_with_the_rest(tmp_path):
    work, held = unfinished.begin(tmp_path / "out", {"lr": 1}, Console())
    (work / "settings.json.01234567.partial").write_text("{")
    unfinished.remove(work, held)
    assert not work.exists()
