"""New method: the share of predictions equal to their reference, to begin with.

Say here: source, protocol, and what is done differently and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import evaluate

from harness.metrics import Score, mean
from harness.metrics._compute import columns, compute, text_pairs

TASKS = ("translation", "speech", "reasoning")


class Equal(evaluate.Metric):
    """New method as an `evaluate` metric: one reference per prediction."""

    def _info(self) -> evaluate.MetricInfo:
        return text_pairs("Share of equal strings.", "")

    def _compute(self, predictions, references) -> dict[str, Any]:
        value, error = mean([100.0 * (p == r) for p, r in zip(predictions, references, strict=True)])
        return {"value": value, "stderr": error}


def score(rows: Iterable[Mapping[str, Any]], *, strip: bool = True) -> dict[str, Score]:
    """New method: the share of equal predictions in percent, to begin with.

    Args:
        rows: Prediction rows with the strings `prediction` and `reference`, which the tasks in TASKS have.
        strip: Whether white space around both is ignored.
    """
    predictions, references = columns(rows, "prediction", "reference")
    if strip:
        predictions, references = [p.strip() for p in predictions], [r.strip() for r in references]
    found = compute(Equal, predictions=predictions, references=references)
    protocol = f"new_method,strip={strip}"
    share = Score(found["value"], found["stderr"], len(predictions), protocol, higher_is_better=True)
    return {"new_method": share}
