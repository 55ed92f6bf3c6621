"""Where tensors live: `HARNESS_DEVICE` if it is set, otherwise the first CUDA device, otherwise the CPU.

torch knows more devices, but sums that decide a result are of float64, which Apple's `mps` has not, and no method was
ever run on the others.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness.problems import Problem

if TYPE_CHECKING:
    import torch

KINDS = ("cpu", "cuda")


def device() -> torch.device:
    """Returns the device that models run on.

    Raises:
        Problem: `HARNESS_DEVICE` names no device, one that nothing is computed on, or one that this machine lacks.
    """
    import torch

    name = os.environ.get("HARNESS_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise Problem(f"{name!r} is no device", where="HARNESS_DEVICE", hint="write cpu, cuda or cuda:1") from None
    if chosen.type not in KINDS:
        what = f"nothing is computed on {name!r} here, only on {' and '.join(KINDS)}"
        raise Problem(what, where="HARNESS_DEVICE", hint="write cpu, cuda or cuda:1")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise Problem(f"there is no {name!r} on this machine", where="HARNESS_DEVICE", hint="unset it, or write cpu")
    return chosen
