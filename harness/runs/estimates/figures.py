"""What an estimate says, and what holds for every one of them: what a process costs before it works."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROCESS, START = 0.47e9, 7.0
"""Bytes and seconds of Python with torch and transformers, before any model."""
DISK = 4e8
"""Bytes a second, read or written and checked."""
TOKENS = {"translation": 64, "reasoning": 256, "speech": 64}
"""Tokens of an example where no option says how many; a guess."""


@dataclass(frozen=True)
class Estimate:
    """About how many seconds and bytes a stage takes; None where that is unknown, and why.

    Attributes:
        seconds: Of the whole stage.
        memory: Peak bytes of the process, or of the GPU.
        least: Whether more is to come that cannot be foreseen: the trials of a search.
        unknown: Why a figure is missing.
        disk: Bytes that its tokens take in the user's cache folder.
    """

    seconds: float | None = None
    memory: float | None = None
    least: bool = False
    unknown: str = ""
    disk: float = 0

    def __str__(self) -> str:
        from harness.tracking.progress import clock

        if self.memory is None:
            return f"unknown: {self.unknown}"
        time = f"time unknown: {self.unknown}" if self.seconds is None else clock(self.seconds)
        size = f"{self.memory / 2**30:.1f} GiB"
        if self.disk:
            size += f", {self.disk / 2**30:,.1f} GiB of tokens on disk"
        return f"{'at least' if self.least else 'about'} {time}, {size}"


def on_gpu() -> bool:
    """Says whether models will run on a GPU, as `harness.device` will choose; without asking torch."""
    name = os.environ.get("HARNESS_DEVICE")
    return not name.startswith("cpu") if name else Path("/proc/driver/nvidia/version").exists()
