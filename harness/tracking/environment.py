"""Where a result was computed: machine, Python, versions of the packages that can change a number, the code's commit.

The dictionary is committed with every record, so it names no host, no user and no path. A package that is not installed
and a checkout without git are left out rather than guessed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "peft",
    "safetensors",
    "evaluate",
    "sacrebleu",
    "jiwer",
    "lm-eval",
    "babel",
    "espeakng-loader",
    "numpy",
    "mlflow",
)
_ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, Any]:
    """Returns what identifies the machine and the code of this process, ready for JSON.

    Memory is in GiB. The GPU is asked for only when torch is already imported, so that planning never imports it.
    """
    here = {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.release()}-{platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": _memory(),
        "packages": _versions(),
        "git": _commit(_ROOT),
    }
    return {**here, **_torch()}


def _cpu() -> str:
    """Returns the processor's model name, or the architecture where the system does not tell it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> float:
    import psutil

    return round(psutil.virtual_memory().total / 2**30, 1)


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit(folder: Path) -> dict[str, Any] | None:
    """Returns the commit's sha and whether code or experiments differ from it; None where there is no commit.

    Results do not count: a run that adds a record has not changed the code that made it.
    """

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != folder:
            return None
        changed = git("status", "--porcelain", "--", "harness", "experiments", "pyproject.toml")
        return {"sha": git("rev-parse", "HEAD").strip(), "dirty": bool(changed.strip())}
    except (OSError, subprocess.CalledProcessError):
        return None


def _torch() -> dict[str, Any]:
    """Returns torch's thread count and the GPU's name (None on a CPU); nothing at all if torch is not imported."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"threads": torch.get_num_threads(), "gpu": gpu}
