"""The kernels' libraries: compiled at first use, one a format and a build, kept in the user's cache folder.

A library's name holds the sha256 of all sources, of the compiler's version and of its flags, so that a change of any of
them makes a new one. Two processes that need the same library wait for each other at a lock. A plain C interface over
ctypes is compiled in seconds where an extension of torch needs a minute.

torch is imported before a library is loaded: both then use the one OpenMP runtime that comes with torch.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch  # noqa: F401  its OpenMP runtime has to be there first

from harness import remembered
from harness.inference.kernels import isa, sources
from harness.problems import Problem

FLAGS = ("-std=c++17", "-O3", "-Wno-psabi", "-fopenmp", "-fPIC", "-shared")
COMPILERS = ("g++", "c++", "clang++")


class Matrix(ctypes.Structure):
    """The structure of `source/call.h`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("tensors", "bias", "scales", "sums")),
        *((name, ctypes.c_int64) for name in ("out", "inputs", "group")),
        *((name, ctypes.c_int32) for name in ("precision", "threads", "slots", "activations")),
    ]


INTERFACE = {
    "format": {
        "multiply": (
            [ctypes.POINTER(Matrix), ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32],
            None,
        ),
        "expand": ([ctypes.POINTER(Matrix), ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32], None),
    },
    "step": {"step": ([ctypes.c_void_p], None)},
    "stream": {"stream": ([ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32], ctypes.c_uint64)},
}
"""The functions of a library, what they take and what they return; those of a format are alike."""


def reason() -> str | None:
    """Returns why there are no compiled kernels here, or None where there are."""
    return None if _compiler() else f"there is no C++ compiler ({', '.join(COMPILERS)}; CXX names another)"


def library(name: str) -> ctypes.CDLL:
    """Returns the kernels of a source file for the best build, compiled if they are not yet.

    Args:
        name: A source without its ending: dense, bitmask, index, slot; step, a step of a whole stack; and stream, which
            only reads.

    Raises:
        Problem: There is no compiler, it fails, or the cache folder cannot be written.
    """
    return _library(name, isa.best())


@functools.cache
def _library(name: str, build: str) -> ctypes.CDLL:
    compiler = _compiler()
    if compiler is None:
        raise Problem(str(reason()), hint="install one, for example with `apt install g++`")
    flags = (*FLAGS, *(f"-m{feature}" for feature in isa.FEATURES[build]))
    path = remembered.folder() / "kernels" / f"{name}-{build}-{_key(compiler, flags)}.so"
    if not path.exists():
        _compile([compiler, *flags, str(sources.FOLDER / f"{name}.cpp")], path)
    loaded = ctypes.CDLL(str(path))
    for function, (arguments, result) in INTERFACE.get(name, INTERFACE["format"]).items():
        getattr(loaded, function).argtypes, getattr(loaded, function).restype = arguments, result
    return loaded


@functools.cache
def _compiler() -> str | None:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    return next(filter(None, map(shutil.which, names)), None)


def _key(compiler: str, flags: tuple[str, ...]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    return hashlib.sha256(sources.sha256().encode() + version + " ".join(flags).encode()).hexdigest()[:16]


def _compile(command: list[str], path: Path) -> None:
    """Compiles into a file, unless another process has done so meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise Problem(f"cannot write: {error.strerror}", where=str(path.parent), hint="set HARNESS_CACHE") from error
    with lock, tempfile.TemporaryDirectory(dir=path.parent) as place:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        made = Path(place) / path.name
        done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
        if done.returncode:
            said = "\n  ".join(done.stderr.splitlines()[:12])
            raise Problem(f"{command[0]} cannot compile {Path(command[-1]).name}", hint=said)
        os.replace(made, path)
