"""What this machine can and cannot run, and why."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.problems import Problem

PACKAGES = (
    "torch", "transformers", "datasets", "accelerate", "lm_eval", "evaluate", "sacrebleu", "jiwer", "mlflow", "pandas",
    "matplotlib", "babel", "espeakng-loader", "soundfile", "greenlet", "griffe", "pydantic",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report: `ok` is None where there is nothing to judge."""

    what: str
    ok: bool | None
    detail: str


def examine(results: Path) -> Iterator[Finding]:
    """Looks at packages, processor, memory, disk, accelerator, and the places models and data come from."""
    yield from _packages()
    yield from _machine(results)
    yield from _speech()
    yield from _places()


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, False, "not installed; pip install -e .")


def _machine(results: Path) -> Iterator[Finding]:
    try:
        import psutil
        import torch
    except ImportError as error:
        yield Finding("machine", False, f"{error}; nothing can be computed")
        return
    memory = psutil.virtual_memory()
    cores = f"{psutil.cpu_count(logical=True)} logical cores, {torch.get_num_threads()} torch threads"
    yield Finding("processor", None, f"{cores}, {torch.backends.cpu.get_cpu_capability()}")
    yield Finding("memory", None, f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free")
    free = shutil.disk_usage(_existing(results)).free
    yield Finding("disk", free > 2 * 2**30, f"{free / 2**30:.1f} GiB free under {results}")
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        yield Finding("GPU", True, f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")
    else:
        yield Finding("GPU", None, "none that torch sees; everything at scale tiny and small runs on the processor")


def _existing(path: Path) -> Path:
    """Returns the path itself or its first parent that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def _speech() -> Iterator[Finding]:
    from harness.rooms import load

    try:
        seconds = len(load("data", "spoken").rows("test", size=1)[0]["audio"]) / 16000
        yield Finding("espeak-ng", True, f"speaks ({seconds:.1f} s of audio made)")
    except (ImportError, OSError, RuntimeError, Problem) as error:
        yield Finding("espeak-ng", False, f"{error}; the entries on spoken data cannot run at scale tiny")


def _places() -> Iterator[Finding]:
    mirrors = [p for p in os.environ.get("HARNESS_MIRROR", "").split(os.pathsep) if p]
    if not mirrors:
        yield Finding("HARNESS_MIRROR", None, "not set; models and data of scales small and paper come from the hub")
    for mirror in mirrors:
        folder = Path(mirror)
        items = [len(list((folder / kind).glob("*/*"))) for kind in ("models", "datasets")]
        detail = (
            f"{mirror}: {items[0]} models, {items[1]} data sets" if folder.is_dir() else f"{mirror} is not a folder"
        )
        yield Finding("HARNESS_MIRROR", folder.is_dir(), detail)
    offline = os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")
    yield Finding("hub", None, "offline (HF_HUB_OFFLINE)" if offline else "asked for what no mirror holds")


def entries(names: list[str], root: Path) -> Iterator[Finding]:
    """Says of every entry at every scale whether its models and data can be had here."""
    from harness.runs.plan import missing_sources
    from harness.spec import entry as spec

    for name in names:
        try:
            scales = spec.scales(name, root=root)
        except Problem as problem:
            yield Finding(name, False, str(problem))
            continue
        for scale in scales:
            try:
                problems = missing_sources(spec.read(name, scale, root=root))
            except Problem as problem:
                problems = [problem]
            detail = "everything it needs is here" if not problems else "; ".join(p.what for p in problems)
            yield Finding(f"{name} --scale {scale}", not problems, detail)
