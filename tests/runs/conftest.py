from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest

from harness.runs import keys
from harness.runs.execute import Event, execute
from harness.runs.keys import Stage
from harness.runs.plan import Plan, PlannedCell, arrange
from harness.runs.store import Store

FAKE = '''
import errno, hashlib, os, time
from harness.problems import Problem
from harness.runs.job import Progress

VERSION = 1

def run(job):
    """A chain of hashes that checkpoints after every step."""
    options, saved = job.options, job.scratch / "step"
    start, state = saved.read_text().split() if saved.exists() else (0, "")
    parents = sorted((path / "model.bin").read_text() for path in job.parents.values())
    (job.folder / "half").write_text("half written")
    for step in range(int(start), options.get("steps", 2)):
        if step == options.get("fail_at"):
            if options["fail"] == "problem":
                raise Problem("the loss is not finite", where="step 1", hint="lower lr")
            if options["fail"] == "disk":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if options["fail"] == "interrupt":
                raise KeyboardInterrupt
            raise ZeroDivisionError("division by zero")
        state = hashlib.sha256(f"{state}{step}{options['name']}{parents}".encode()).hexdigest()
        saved.with_suffix(".new").write_text(f"{step + 1} {state}")
        saved.with_suffix(".new").replace(saved)
        time.sleep(options.get("pause", 0))
        yield Progress(step + 1, options.get("steps", 2), {"loss": 1 / (step + 1)})
    (job.folder / "half").unlink()
    (job.folder / "model.bin").write_text(state)
    if "weights" in options:
        header = b'{"w": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}}'
        data = (state * options["weights"]).encode()
        (job.folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    (job.folder / "inner").mkdir()
    (job.folder / "inner" / "config.json").write_text("{}")
'''


@dataclass(frozen=True)
class FakeCell:
    label: str


class Fake:
    """Fake stages and cells, and what runs them."""

    def __init__(self, folder: Path, store: Store):
        self.folder, self.store = folder, store
        self.loaded: list[str] = []

    def load(self, name: str) -> ModuleType:
        """What `execute` takes as `load_stage`."""
        self.loaded.append(name)
        spec = importlib.util.spec_from_file_location(f"fake_{name}", self.folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @staticmethod
    def stage(name: str, *parents: Stage, slug: str = "", **options: Any) -> Stage:
        slug = slug or name
        parents = dict(zip(("model", "teacher"), parents, strict=False))
        return Stage(name, {"name": slug, **options}, parents, slug=slug)

    @staticmethod
    def cell(label: str, **stages: Stage) -> PlannedCell:
        return PlannedCell(FakeCell(label), {role.replace("__", "/"): one for role, one in stages.items()})

    def cells(self, every: Mapping[str, Any] = MappingProxyType({}), **options: Any) -> list[PlannedCell]:
        """Two cells, 0.5 and 0.75, that share the dense model.

        Args:
            every: Options of all stages that make a model.
            options: Those of the tune of the first.
        """
        dense, cells = self.stage("prepare", **every), []
        for label, more in (("0.5", options), ("0.75", {})):
            pruned = self.stage("prune", dense, slug=label, **every)
            tuned = self.stage("tune", pruned, dense, slug=label, **every, **more)
            judged = self.stage("evaluate", tuned, slug=label)
            cells.append(self.cell(label, prepare=dense, prune=pruned, tune=tuned, evaluate__bleu=judged))
        return cells

    def plan(self, *cells: PlannedCell) -> Plan:
        return arrange(cells, self.store)

    def run(self, *cells: PlannedCell, **options: Any) -> list[Event]:
        return list(execute(self.plan(*cells), self.store, load_stage=self.load, poll=0.01, **options))

    def mend(self) -> None:
        """Takes the failures out of the stages."""
        for path in self.folder.glob("*.py"):
            path.write_text(path.read_text().replace('if step == options.get("fail_at")', "if False"))

    def compute(self, stage: Stage) -> Path:
        """Computes a stage with what it comes from; returns its folder."""
        self.run(self.cell("only", only=stage))
        return self.store.open(stage)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Four fake stage modules that stand in for harness/stages, and an empty store."""
    folder = tmp_path / "stages"
    folder.mkdir()
    for name in ("prepare", "prune", "tune", "evaluate"):
        (folder / f"{name}.py").write_text(FAKE)
    monkeypatch.setattr(keys, "STAGES", folder)
    return Fake(folder, Store(tmp_path / "artifacts"))


@pytest.fixture
def python() -> Callable[..., subprocess.Popen]:
    """Starts a Python of this checkout on a script, its standard output a pipe."""

    def start(script: str, *arguments: object, **options: Any) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        command = [sys.executable, "-c", script, *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)

    return start


@pytest.fixture
def heavy(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Options of fake stages that make them write large weights: 64 bytes for each that the number says."""
    monkeypatch.setattr("harness.runs.freeing.LARGE", 1000)
    return {"weights": 64}
