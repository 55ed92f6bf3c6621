"""One job measured: a command as a process of its own, its wall and processor seconds and its peak memory.

The kernel keeps the figures (`wait4`). The peak is that of the largest single process among the command and those it
has waited for; on Linux it begins at the size of the process that starts it, so nothing heavy is imported here.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.problems import Problem

TAIL = 12
"""Lines of a failed command's output that are shown."""


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Attributes:
        seconds: Wall time from start to end, the start of the interpreter included.
        cpu_seconds: Processor time, all threads and finished children together.
        peak_bytes: Largest resident size.
        load: The machine's load average before it; about 0 on one that does nothing else.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    load: float


def run(name: str, command: Sequence[str], log: Path) -> Run:
    """Runs a command to its end.

    Args:
        name: What it is called in an error.
        command: Program and arguments.
        log: Where its output goes.

    Raises:
        Problem: It cannot be started, or it fails.
    """
    load, begin = os.getloadavg()[0], time.perf_counter()
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise Problem(f"{name} cannot be started: {error.strerror}", where=command[0]) from error
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = log.read_text(encoding="utf8", errors="replace").splitlines()[-TAIL:]
        raise Problem(f"{name} ended with status {process.returncode}", hint="\n  ".join(said))
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, load)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median, the smallest and the largest of some values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def line(points: Sequence[tuple[float, float]]) -> Mapping[str, float]:
    """Returns the least-squares line through points: intercept, slope, and R^2, 1 for points on a line."""
    slope, intercept = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    mean = statistics.fmean(y for _, y in points)
    around = sum((y - mean) ** 2 for _, y in points)
    off = sum((y - intercept - slope * x) ** 2 for x, y in points)
    return {"intercept": intercept, "slope": slope, "r2": 1 - off / around if around else 1.0}
