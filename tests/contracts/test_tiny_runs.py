"""Every entry runs end to end at scale tiny: a few steps of each stage, from the registry to its table."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

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
SHORT = (
    *("prepare.steps=2", "prepare.warmup=0", "pretrain.steps=1", "pretrain.warmup=0", "tune.steps=1", "tune.warmup=0"),
    *("prune.samples=8", "quantize.samples=8"),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Holds the artifacts of all entries that a process runs: many begin with the same dense model, made once."""
    return tmp_path_factory.mktemp("shared")


def shortened(name):
    """The entry at scale tiny with a few steps and rows, and of each axis its last value."""
    whole = spec.read(name, "tiny", root=ROOT)
    short = [each for each in SHORT if getattr(whole, each.partition(".")[0]) is not None]
    if any((cell.settings["tune"] or {}).get("ramp") for cell in cells(whole)):  # every pruning needs a step after it
        short = [each for each in short if not each.startswith("tune.")]
    axes = axes_of(whole)[0]
    short = [each for each in short if not any(each.partition("=")[0] in axis.settings for axis in axes)]
    last = [f"{axis.name}={list(axis.points)[-1]}" for axis in axes]
    limits = [f"evaluate.{evaluation}.limit=8" for evaluation in whole.evaluations]
    return spec.read(name, "tiny", root=ROOT, set=(*short, *last, *limits))


@pytest.mark.parametrize("name", listing.names(ROOT))
def test_an_entry_runs_from_the_registry_to_its_table(name, tmp_path, shared):
    entry = shortened(name)
    store = Store(shared / "artifacts")
    with contextlib.closing(execute(plan(cells(entry), store), store)) as events:
        ended = [event for event in events if isinstance(event, CellDone | CellFailed)]
    assert [event.message for event in ended if isinstance(event, CellFailed)] == []
    assert len(ended) == len(cells(entry))
    for event in ended:
        said = record.build(entry, event.cell, event.folders, shared)
        record.write(said, tmp_path / "records")
        asked, *reached = [
            said["sparsity"][key] for key in ("asked", "after_prune", "after_tune") if key in said["sparsity"]
        ]
        assert reached == pytest.approx([asked] * len(reached), abs=0.01)
    table = tables.markdown(compare(entry, record.read_all(tmp_path / "records")))
    assert table.startswith(f"# {entry.title}")
