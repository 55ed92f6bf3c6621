"""What stages read from outside, each looked up once while planning, and what cannot be used.

That is models and data, and what a score depends on besides: an evaluation on packages, a time on the machine.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness import rooms
from harness.inference.baseline import own_dense
from harness.inference.kernels import sources as kernels
from harness.problems import Problem
from harness.runs import usable
from harness.runs.decides import held_out
from harness.sources import Source, folder_at, model_source, snapshot
from harness.spec.fits import config_at, wrong_model
from harness.tracking.environment import environment

GPUS = Path("/proc/driver/nvidia/gpus")


class Origins:
    """Looks sources up; what is absent is noted in `missing` by its text, and planning goes on to find the rest."""

    def __init__(self) -> None:
        self.missing: dict[str, Problem] = {}
        self._known: dict[tuple, Any] = {}

    def model(self, name: str) -> Source | None:
        """Returns where a model comes from: `org/name`, `org/name@revision` or a folder; None if it cannot be used."""
        return self._once(("model", name), lambda: _usable(name))

    def check(self) -> None:
        """Raises the first of what is absent, for who needs all that was looked up."""
        if self.missing:
            raise next(iter(self.missing.values()))

    def fits(self, settings: Mapping[str, Any]) -> bool:
        """Says whether a cell's model can do what the cell asks of it, as far as its config is here to tell."""
        name = settings["model"]
        source = None if name.startswith("tiny/") else self.model(name)
        config = self._once(("config", name), lambda: _config(source)) if source else None
        wrong = wrong_model(name, config, settings) if config else []
        self.missing |= {str(problem): problem for problem in wrong}
        return not wrong

    def data(self, section: Mapping[str, Any]) -> dict[str, Source] | None:
        """Returns what a section reads, by role; None if it cannot be had.

        That is its data set, or, for an evaluation whose task brings its own, each of the task's.
        """
        if section["data"] is None:
            sources = self._once(("task", section["task"]), lambda: rooms.bind("task", section["task"], "sources")())
            return None if sources is None else {f"data/{name}": source for name, source in sources.items()}
        splits = tuple(dict.fromkeys((section["split"], *(["train"] if _shown(section["task"]) else []))))
        key = ("data", section["data"], splits)
        source = self._once(key, lambda: rooms.bind("data", section["data"], "source")(splits))
        return None if source is None else {"data": source}

    def search(self, section: Mapping[str, Any]) -> dict[str, Source] | None:
        """Returns the data that a searching allocation is judged on, its section's own by default; None if absent."""
        found = self.data(held_out(section))
        return None if found is None else {"search": found["data"]}

    def packages(self, evaluation: Mapping[str, Any]) -> dict[str, Source]:
        """Returns the packages, with their versions, that an evaluation's score depends on: its files' `PACKAGES`."""
        found: dict[str, Source] = {}
        for kind in ("task", "metric"):
            method = rooms.ROOMS[kind].method(rooms.parse(evaluation[kind]).name)
            for name in method.constants.get("PACKAGES", ()):
                found[f"package/{name}"] = self._package(name)
        return found

    def machine(self, measuring: Mapping[str, Any]) -> dict[str, Source]:
        """Returns what a time depends on: processor, threads, PyTorch or another runtime, the kernels' sources, a GPU.

        Threads that nobody asks for are as many as torch takes: by OMP_NUM_THREADS, or the cores there are.
        """
        engines = [measuring["engine"], measuring["against"]]
        threads = measuring["threads"] or os.environ.get("OMP_NUM_THREADS") or f"{_cores()} cores'"
        processor = self._once(("processor",), lambda: environment()["cpu"])
        found = {"processor": Source("machine", processor, f"{threads} threads")}
        if any(own_dense(engine) for engine in engines):
            found["kernels"] = Source("machine", "kernels", f"sha256:{self._once(('kernels',), kernels.sha256)}")
        methods = [rooms.ROOMS["engine"].method(rooms.parse(each).name) for each in engines]
        if any(method.constants["DEVICE"] == "cuda" for method in methods):
            found["gpu"] = Source("machine", "gpu", self._once(("gpu",), _gpu))
        for name in ("torch", *(method.name for method in methods if method.constants.get("PEER"))):
            found[f"package/{name}"] = self._package(name)
        return found

    def _package(self, name: str) -> Source:
        return Source("package", name, self._once(("package", name), lambda: _installed(name)))

    def _once(self, key: tuple, find: Callable[[], Any]) -> Any:
        if key not in self._known:
            try:
                self._known[key] = find()
            except Problem as problem:
                self.missing[str(problem)] = problem
                self._known[key] = None
        return self._known[key]


def _usable(name: str) -> Source:
    bare, at, revision = (name, "", "") if folder_at(name) else name.partition("@")
    source = model_source(bare, revision if at else "main")
    if source.path is not None:
        usable.check(source.path)
    return source


def _config(source: Source) -> Mapping[str, Any] | None:
    """Returns a model's config; None where it is not here yet."""
    folder = snapshot(source)
    return config_at(folder) if folder and (folder / "config.json").is_file() else None


@functools.cache
def _shown(task: str) -> bool:
    """Whether a task shows examples of the training split before each question."""
    return bool(rooms.parse(task).options.get("shots"))


def _cores() -> int:
    """Returns how many cores this process may run on, where the system tells; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _installed(package: str) -> str:
    """Returns a package's version, or that it is not installed, which whoever needs it says."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _gpu() -> str:
    """Returns the names of the GPUs, as the driver tells them without torch."""
    texts = (path.read_text(encoding="utf8") for path in sorted(GPUS.glob("*/information")))
    models = [line for text in texts for line in text.splitlines() if line.startswith("Model")]
    return ", ".join(line.partition(":")[2].strip() for line in models) or "none"
