"""Which of the kernels' three builds this processor runs: AVX-512 with VNNI and VBMI2, AVX2 with FMA and F16C, or any.

Linux says what the processor can do and the system saves; elsewhere the portable build is used.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from pathlib import Path

from harness.problems import Problem, unknown

_AVX2 = ("avx2", "fma", "f16c", "bmi2", "popcnt")
_AVX512 = tuple(f"avx512{part}" for part in ("f", "bw", "vl", "dq", "vbmi", "vbmi2", "vnni"))
FEATURES: dict[str, tuple[str, ...]] = {"avx512": (*_AVX2, *_AVX512), "avx2": _AVX2, "portable": ()}
"""What each build needs, by the compiler's names; the best first."""
_LIMIT: contextvars.ContextVar[str] = contextvars.ContextVar("limit", default="avx512")


def best() -> str:
    """Returns the best build that this processor runs, or that `limit` allows."""
    return _best(_LIMIT.get(), _features())


@functools.cache
def _best(limit: str, features: frozenset[str]) -> str:
    names = list(FEATURES)
    return next(name for name in names[names.index(limit) :] if features.issuperset(FEATURES[name]))


def has(name: str) -> bool:
    """Returns whether this processor runs a build."""
    return _features().issuperset(FEATURES[name])


@contextlib.contextmanager
def limit(name: str) -> Iterator[None]:
    """Holds products back to a build, for a comparison; within this thread.

    Raises:
        Problem: There is no such build, or the processor does not run it.
    """
    if name not in FEATURES:
        raise unknown("build", name, FEATURES)
    if not has(name):
        absent = ", ".join(sorted(set(FEATURES[name]) - _features()))
        raise Problem(f"this processor does not run the {name} kernels", hint=f"it lacks {absent}")
    token = _LIMIT.set(name)
    try:
        yield
    finally:
        _LIMIT.reset(token)


@functools.cache
def _features() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf8")
    except OSError:
        return frozenset()
    flags = next((line.partition(":")[2] for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(flag.replace("avx512_", "avx512") for flag in flags.split())
