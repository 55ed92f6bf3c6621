"""Runs our `evaluate.Metric` classes in memory: nothing is fetched, and nothing stays on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import evaluate

from harness.problems import Problem


def text_pairs(
    description: str, citation: str, inputs: str = "predictions, references: one string each"
) -> evaluate.MetricInfo:
    """Returns what `evaluate` is to know of a metric that reads one predicted and one reference text a row."""
    text = datasets.Value("string")
    features = datasets.Features({"predictions": text, "references": text})
    return evaluate.MetricInfo(description=description, citation=citation, inputs_description=inputs, features=features)


def compute(metric: type[evaluate.Metric], **inputs: Any) -> dict[str, Any]:
    """Returns what a metric class computes of its inputs (`predictions`, `references`) and options.

    `evaluate` makes a folder even for a metric in memory, by default in the user's cache; it gets a temporary one.
    """
    with TemporaryDirectory(prefix="harness-metric-") as folder:
        return metric(keep_in_memory=True, cache_dir=folder, seed=0).compute(**inputs)


def columns(rows: Iterable[Mapping[str, Any]], *names: str) -> list[list[Any]]:
    """Returns the named columns of prediction rows.

    Raises:
        Problem: There is no row, or a row lacks a column.
    """
    rows = list(rows)
    if not rows:
        raise Problem("there are no predictions to score")
    for index, row in enumerate(rows):
        if missing := [name for name in names if name not in row]:
            hint = f"it has: {', '.join(map(str, row))}"
            raise Problem(f"the prediction has no {' and no '.join(missing)}", where=f"row {index}", hint=hint)
    return [[row[name] for row in rows] for name in names]
