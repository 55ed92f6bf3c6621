"""How far the masks in two model folders agree: the share of weights that are zero in both or in neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness.problems import Problem
from harness.runs.shapes import weight_files


def agreement(one: Path, other: Path, layers: Iterable[str]) -> float | None:
    """Compares the zeros of two pruned models.

    Args:
        one: A model's folder.
        other: Another's, which any program may have written.
        layers: The pruned layers, by name.

    Returns:
        The share of equal entries, zero or not, over all weights of the layers; None where a folder holds no
        safetensors, or not these layers in one shape.
    """
    equal = size = 0
    with ExitStack() as opened:
        try:
            first, second = (_tensors(folder, opened) for folder in (one, other))
        except Problem:
            return None
        for layer in layers:
            name = f"{layer}.weight"
            if name not in first or name not in second:
                return None
            a, b = (tensors[name].get_tensor(name) for tensors in (first, second))
            if a.shape != b.shape:
                return None
            equal += int(((a == 0) == (b == 0)).sum())
            size += a.numel()
    return equal / size if size else None


def _tensors(folder: Path, opened: ExitStack) -> Mapping[str, Any]:
    """Returns the open file of each tensor by its name."""
    from safetensors import safe_open

    files = [opened.enter_context(safe_open(file, framework="pt")) for file in weight_files(folder)]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118
