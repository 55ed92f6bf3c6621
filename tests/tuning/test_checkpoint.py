from __future__ import annotations

import random

import numpy
import pytest
import torch
from torch import nn

from harness.problems import Problem
from harness.tuning import checkpoint


def made(seed: int):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_everything_comes_back(tmp_path):
    model, optimizer = made(0)
    path = checkpoint.save(tmp_path / "new", 7, model, optimizer, {"curve": [{"loss": 1.5}]})
    drawn = (random.random(), numpy.random.rand(), torch.rand(1).item())
    other, fresh = made(1)
    assert checkpoint.newest(tmp_path / "new") == path
    assert checkpoint.load(path, other, fresh) == (7, {"curve": [{"loss": 1.5}]})
    assert (random.random(), numpy.random.rand(), torch.rand(1).item()) == drawn
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert all(torch.equal(optimizer.state[a][k], fresh.state[b][k]) for k in ("exp_avg", "exp_avg_sq", "step"))


def test_only_the_newest_is_kept_and_drafts_are_swept(tmp_path):
    model, optimizer = made(0)
    (tmp_path / "step-00000001.writing").write_text("a kill left this")
    for step in (9, 10):
        path = checkpoint.save(tmp_path, step, model, optimizer)
    assert list(tmp_path.iterdir()) == [path]


def test_there_is_no_checkpoint_at_first(tmp_path):
    assert checkpoint.newest(tmp_path / "nothing") is None


@pytest.mark.parametrize("at", [0, 500, -1])
def test_a_damaged_file_is_refused_by_name(tmp_path, at):
    model, optimizer = made(0)
    path = checkpoint.save(tmp_path, 3, model, optimizer)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(Problem, match=f"{path.name}: the checkpoint is damaged"):
        checkpoint.load(path, model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("before", [None, torch.ones(2, 8, dtype=torch.bool), torch.ones(2, 1, dtype=torch.bool)])
def test_a_checkpoint_of_another_form_is_refused_by_the_tensors_name(tmp_path, before):
    model, optimizer = made(0)
    if before is not None:
        model[1].register_buffer("keep", before)
    path = checkpoint.save(tmp_path, 3, model, optimizer)
    model[1].register_buffer("keep", torch.ones(2, 1, dtype=torch.uint8))
    with pytest.raises(Problem, match=r"another version of the harness: 1\.keep"):
        checkpoint.load(path, model, optimizer)


def test_a_failed_write_leaves_the_one_before(tmp_path, monkeypatch):
    model, optimizer = made(0)
    path = checkpoint.save(tmp_path, 3, model, optimizer)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 4, model, optimizer)
    assert list(tmp_path.iterdir()) == [path]
