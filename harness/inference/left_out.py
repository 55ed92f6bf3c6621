"""What is lost of a quantised model when its weights alone are taken: how the inputs of its layers are rounded.

Evaluation rounds them as the folder says. Engines and exported forms have ways of their own: most round no inputs, and
none takes the ranges that `static` inputs were calibrated to. So it is said beside whatever was made of such a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from harness import exported
from harness.quantization import codes
from harness.sources import Source, snapshot


def left_out(source: Path | Source) -> dict[str, int]:
    """Returns how many layers have their inputs rounded, by how: {"static": 28}; empty where none has.

    Raises:
        Problem: The folder's codes, or its description, are damaged.
    """
    folder = snapshot(source) if isinstance(source, Source) else source
    if exported.is_exported(folder):
        return exported.described(folder).get("left_out", {})
    if folder is None or not (folder / codes.FILE).is_file():
        return {}
    inputs = (layer.input for layer in codes.load(folder).values() if layer.input is not None)
    return dict(Counter(type(each).__name__.lower() for each in inputs))


def sentence(found: Mapping[str, int]) -> str:
    """Returns what a reader must know of it."""
    said = " and ".join(f"of {count} layers ({kind})" for kind, count in found.items())
    return f"Left out: the 8-bit inputs {said} that this model is evaluated with; here it is its weights alone."
