"""A stage's curve: read from its file into columns, and thinned to what a record keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = "curve.jsonl"
POINTS = 200
"""The most points that a record keeps of a curve."""


def read(path: Path) -> dict[str, list[Any]]:
    """Reads a stage's curve, one JSON object a line, into columns; a value that a line lacks is None."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def thin(curve: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Keeps at most `POINTS` points of a curve, to six digits."""
    kept = evenly(max((len(column) for column in curve.values()), default=0))
    return {name: [digits(column[i]) for i in kept] for name, column in curve.items()}


def evenly(length: int) -> Sequence[int]:
    """Returns at most `POINTS` evenly spaced positions below `length`, the first and the last among them."""
    return range(length) if length <= POINTS else [round(i * (length - 1) / (POINTS - 1)) for i in range(POINTS)]


def digits(value: Any) -> Any:
    """Rounds a number of a curve to six significant digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
