from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.inference.kernels import build, isa

pytestmark = pytest.mark.slow  # compiling with sanitizers takes half a minute a build
BUILDS = [name for name in isa.FEATURES if isa.has(name)]
SCRIPT = Path(__file__).with_name("sanitized.py")


def runtime(name: str) -> str | None:
    """Returns the compiler's own library of a sanitizer, where it has one."""
    compiler = build._compiler()
    if compiler is None:
        return None
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return found if Path(found).is_absolute() else None


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    libraries = " ".join(filter(None, map(runtime, ("libasan.so", "libubsan.so"))))
    settings = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1", "LD_PRELOAD": libraries}
    environment = {**os.environ, **settings, "HARNESS_CACHE": str(folder)}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(runtime("libasan.so") is None, reason="the compiler has no sanitizers")
@pytest.mark.parametrize("name", BUILDS)
def test_nothing_is_read_or_written_out_of_bounds(name, tmp_path):
    done = run(tmp_path, str(SCRIPT), name)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.skipif(runtime("libasan.so") is None, reason="the compiler has no sanitizers")
def test_the_sanitizers_are_at_work(tmp_path):
    """Without the 64 zeros behind the values of a bitmask the kernels do read beyond them."""
    code = (
        "import runpy, sys, harness.inference.formats.bitmask as b; b.SLACK = 0; "
        f"sys.argv[0] = ''; runpy.run_path({str(SCRIPT)!r})"
    )
    done = run(tmp_path, "-c", code, isa.best(), "bitmask")
    assert done.returncode != 0 and "AddressSanitizer: heap-buffer-overflow" in done.stderr
