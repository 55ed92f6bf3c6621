"""Every entry runs end to end at scale tiny: a few steps of each stage, from the registry to its table.

Of each entry these are the last cell of every axis with its baselines, and whatever cells it takes until all that its
cells do has run: each method, loss, criterion, solver, quantisation, ... with its options.
"""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path

import pytest

from harness import rooms
from harness.reporting import tables
from harness.reporting.compare import compare
from harness.runs.events import CellDone, CellFailed
from harness.runs.execute import execute
from harness.runs.plan import plan
from harness.runs.store import Store
from harness.spec import entry as spec
from harness.spec import listing
from harness.spec.axes import axes_of
from harness.spec.grid import cells
from harness.tracking import record

ROOT = Path(__file__).parents[2] / "experiments"
NAMES = listing.names(ROOT)
SHORT = (
    *("prepare.steps=2", "prepare.warmup=0", "pretrain.steps=1", "pretrain.warmup=0", "tune.warmup=0"),
    *("prune.samples=8", "quantize.samples=8", "tune.batch_size=4"),
)
CHOICES = {
    "prune": ("start", "criterion", "solver", "pattern", "allocation", "refiner", "ramp", "dtype"),
    "pretrain": ("method", "loss", "schedule"),
    "tune": ("method", "loss", "schedule", "ramp", "restart", "teacher"),
    "quantize": (
        *("rounding", "bits", "group", "symmetric", "activations", "smooth", "embeddings"),
        *("rounding+bits+activations+smooth", "skip"),
    ),
    "measure": ("engine", "against"),
}
"""The settings by which a cell may do something that no other does; joined ones count as one."""
RAMPED = 10
"""Steps over which each of five prunings has a step after it where the last is followed by 60% of them."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Holds the artifacts of all entries that a process runs: many begin with the same dense model, made once."""
    return tmp_path_factory.mktemp("shared")


def does(cell):
    """What a cell does: the sections that it has, and each setting of `CHOICES` with its value, where it has one."""
    found = {("sections", "", json.dumps([name for name in CHOICES if cell.settings[name]]))}
    for section, keys in CHOICES.items():
        for key in keys if cell.settings[section] else ():
            value = [cell.settings[section][part] for part in key.split("+")]
            found |= {(section, key, json.dumps(value))} if value != [None] else set()
    return found


def rounds(cell):
    """The steps after which a method that moves its positions has done so twice; 1 for any other."""
    if not cell.settings["tune"]:
        return 1
    options = rooms.parse(cell.settings["tune"]["method"]).options
    return options.get("interval", 1) + options.get("window", 0)


@functools.cache
def whole(name):
    """The entry at scale tiny, and its cells by label, of the first seed each."""
    entry = spec.read(name, "tiny", root=ROOT)
    return entry, by_label(entry)


def by_label(entry):
    """Its cells by label, in their order, of the first seed each."""
    found = {}
    for cell in cells(entry):
        found.setdefault(cell.label, cell)
    return found


@functools.cache
def chosen(name):
    """The labels of the entry's cells that run."""
    entry, every = whole(name)
    last = tuple(f"{axis.name}={list(axis.points)[-1]}" for axis in axes_of(entry)[0])
    labels = {cell.label for cell in cells(spec.read(name, "tiny", root=ROOT, set=last))}
    done = {each for label in labels for each in does(every[label])}
    for label, cell in every.items():
        if does(cell) - done:
            labels.add(label)
            done |= does(cell)
    return labels


@functools.cache
def shortened(name):
    """The entry at scale tiny with a few steps and rows, and those of its cells that run."""
    entry, every = whole(name)
    mine = [every[label] for label in chosen(name)]
    ramped = any((cell.settings["tune"] or {}).get("ramp") for cell in mine)
    steps = max(RAMPED if ramped else 1, *map(rounds, mine))
    short = [each for each in (*SHORT, f"tune.steps={steps}") if getattr(entry, each.partition(".")[0]) is not None]
    short = [each for each in short if not any(each.partition("=")[0] in axis.settings for axis in axes_of(entry)[0])]
    limits = [f"evaluate.{evaluation}.limit=8" for evaluation in entry.evaluations]
    entry = spec.read(name, "tiny", root=ROOT, set=(*short, *limits))
    return entry, [cell for label, cell in by_label(entry).items() if label in chosen(name)]


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_runs_from_the_registry_to_its_table(name, tmp_path, shared):
    entry, mine = shortened(name)
    store = Store(shared / "artifacts")
    with contextlib.closing(execute(plan(mine, store), store)) as events:
        ended = [event for event in events if isinstance(event, CellDone | CellFailed)]
    assert [event.message for event in ended if isinstance(event, CellFailed)] == []
    assert len(ended) == len(mine)
    for event in ended:
        said = record.build(entry, event.cell, event.folders, shared)
        record.write(said, tmp_path / "records")
        asked, *reached = [
            said["sparsity"][key] for key in ("asked", "after_prune", "after_tune") if key in said["sparsity"]
        ]
        assert reached == pytest.approx([asked] * len(reached), abs=0.01)
    table = tables.markdown(compare(entry, record.read_all(tmp_path / "records")))
    assert table.startswith(f"# {entry.title}")


def test_what_runs_is_everything_that_any_tiny_cell_does():
    every = {each for name in NAMES for cell in whole(name)[1].values() for each in does(cell)}
    run = [cell for name in NAMES for cell in shortened(name)[1]]
    assert {each for cell in run for each in does(cell)} == every
    assert len({each for each in every if each[:2] == ("tune", "method")}) > 20


def test_methods_that_move_their_positions_do_so_twice():
    moving = [cell for name in NAMES for cell in shortened(name)[1] if rounds(cell) > 1]
    assert moving and all(cell.settings["tune"]["steps"] >= rounds(cell) for cell in moving)
