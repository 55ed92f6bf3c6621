"""The most memory a piece of work needed: reset the peak before it, read it after.

On CUDA the allocator's peak; on Linux the kernel's high-water mark of this process, which can be reset; elsewhere that
mark since the process began, which bounds a piece of work from above.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
