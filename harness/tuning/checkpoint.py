"""Checkpoints of a run: model, optimiser and random states in one file, so that a resumed run repeats every bit.

A file is written under another name, hashed, brought to the disk and renamed, and only then is the one before it
deleted: there is always a good one. It holds whole tensors, however many processes share them, so that a run may go
on in another number of them. The name holds the step and the hash, `step-00000120.1f2e3d4c5b6a7988.pt`, so a
damaged file is recognised before anything is read from it. The schedule and the data order follow from the step.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

from harness.problems import Problem
from harness.tuning import devices

_DIGITS = 16


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    notes: Mapping[str, Any] | None = None,
    *,
    writes: bool = True,
) -> Path | None:
    """Writes the checkpoint of a step and deletes the older ones.

    Args:
        folder: Where checkpoints lie; it is made if need be.
        step: Steps done.
        model: The model, not wrapped.
        optimizer: Its optimiser.
        notes: Plain values to keep beside them.
        writes: Whether it is this process, of those that train, that writes; all of them take part.

    Returns:
        The file; None where another process writes it.

    Raises:
        OSError, RuntimeError: It could not be written (torch's words for a full disk); the one before is still there.
    """
    whole = {
        "model": devices.whole_state(model.state_dict(), writes),
        "optimizer": devices.whole_state(optimizer.state_dict(), writes),
    }
    if not writes:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        **whole,
        "random": _random_states(),
        "notes": dict(notes or {}),
    }
    draft = folder / f"step-{step:08d}.writing"
    try:
        with draft.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    path = folder / f"step-{step:08d}.{_hash(draft)}.pt"
    draft.rename(path)
    for old in (*folder.glob("step-*.pt"), *folder.glob("step-*.writing")):
        if old != path:
            old.unlink()
    return path


def newest(folder: Path) -> Path | None:
    """Returns the checkpoint of the highest step, or None."""
    return max(folder.glob("step-*.pt"), default=None)


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """Puts model, optimiser and random states back.

    Args:
        path: From `newest`.
        model: A model of the same shape, not wrapped, on its device.
        optimizer: Its optimiser, as new.

    Returns:
        The steps done, and the notes.

    Raises:
        Problem: The file is not what was written, or it is of another version of the harness.
    """
    if path.suffixes[-2] != f".{_hash(path)}":
        raise Problem(
            "the checkpoint is damaged: its bytes are not those that were written",
            where=str(path),
            hint="delete it to begin again from step 0",
        )
    state = torch.load(path, map_location="cpu", weights_only=True)
    own = model.state_dict()
    saved = state["model"]
    form = {name: (tensor.shape, tensor.dtype) for name, tensor in saved.items()}
    if other := [name for name, tensor in own.items() if form.get(name) != (tensor.shape, tensor.dtype)]:
        what = f"the checkpoint is of another version of the harness: {other[0]} has another form there"
        raise Problem(what, where=str(path), hint="delete it to begin again from step 0")
    model.load_state_dict({name: devices.like(value, own[name]) for name, value in saved.items()})
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, moments in state["optimizer"]["state"].items():
        moments.update({name: devices.like(value, trained[number]) for name, value in moments.items()})
    optimizer.load_state_dict(state["optimizer"])
    _restore(state["random"])
    return state["step"], state["notes"]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]


def _random_states() -> dict[str, Any]:
    kind, keys, position, has_gauss, gauss = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore(states: Mapping[str, Any]) -> None:
    random.setstate(states["python"])
    numpy.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
