"""The most memory a piece of work needed: reset the peak before it, read it after.

On CUDA the allocator's peak; on Linux the kernel's high-water mark of this process, which can be reset; elsewhere that
mark since the process began, which bounds a piece of work from above.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_TRIM, _MAP = -1, -3
"""glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
_MOST = 32 << 20
"""The largest M_MMAP_THRESHOLD that glibc comes to by itself; the other one is then twice as large."""


@contextlib.contextmanager
def freed_kept() -> Iterator[Callable[[], object]]:
    """Lets this process keep, meanwhile, the memory that it frees for what it asks for next; nothing without glibc.

    A forward pass frees and asks for tens of megabytes in every layer. glibc gives them back to the kernel each time,
    and the kernel clears every page that it hands out again. At the end all that is free is given back.

    Yields:
        What gives it back earlier: to be called now and then, for what is asked for next does not always fit where
        something was freed, and what is kept would grow.
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield lambda: None
        return
    try:
        _set(library, 4 * _MOST, 8 * _MOST)
        yield lambda: library.malloc_trim(0)
    finally:
        _set(library, _MOST, 2 * _MOST)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, map: int, trim: int) -> None:
    library.mallopt(_MAP, map)
    library.mallopt(_TRIM, trim)


def held(device: torch.device) -> int:
    """Returns the bytes in use now, of what `peak` counts; what is free goes back to the kernel before."""
    import torch

    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if sys.platform != "linux":
        return peak(device)
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
    return _status("VmRSS")


def reset_peak(device: torch.device) -> None:
    """Begins a new peak."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may not let a process reset its own mark
            Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> int:
    """Returns the most bytes in use at once since the last reset: on the CUDA device, or of the whole process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(field: str) -> int:
    """Returns the bytes of a field of the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
