"""How fast this machine's processor is, measured once in a tenth of a second and remembered in the user's cache folder.

Two figures, by numpy: floating-point operations a second of a 32-bit matrix product, and numbers sorted a second. They
are those of the moment: a busy machine gives lower ones. Delete `speed.json` in the cache folder to measure again.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

from harness import remembered

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SIDE = 640
SORTED = 200_000


@dataclass(frozen=True)
class Speed:
    """Floating-point operations a second of a matrix product, and numbers sorted a second."""

    product: float
    sort: float


@cache
def speed() -> Speed:
    """Returns this machine's speed with the threads that the environment allows."""
    threads = "/".join(os.environ.get(name, "") for name in THREADS)
    here = f"{platform.node()} {platform.machine()} {os.cpu_count()} cores {threads}"
    known = remembered.read("speed.json")
    try:
        return Speed(**{name: float(value) for name, value in known[here].items()})
    except (ValueError, TypeError, KeyError, AttributeError):  # none of this machine yet, or damaged: it is measured
        found = measure()
    remembered.write("speed.json", known | {here: asdict(found)})
    return found


def measure() -> Speed:
    """Measures the speed, the best of a few short tries."""
    import numpy

    draw = numpy.random.default_rng(0)
    a = draw.random((SIDE, SIDE), dtype="float32")
    b = draw.random(SORTED, dtype="float32")
    return Speed(2 * SIDE**3 / _seconds(lambda: a @ a), SORTED / _seconds(lambda: b.argsort()))


def _seconds(work: Callable[[], object], tries: int = 4) -> float:
    took = []
    for _ in range(tries):
        begin = time.perf_counter()
        work()
        took.append(time.perf_counter() - begin)
    return min(took)
