"""Exact match of final numbers, in GSM8K's form (Cobbe et al., arXiv:2110.14168), by lm-eval's two extractions.

    strict:   the first number after "#### "
    flexible: the last number anywhere in the text

Commas, dollar signs and one final point are dropped from the numbers, which are then compared as text; the reference's
number is the one after its "#### ". Both scores are always computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import evaluate

from harness.metrics import Score, mean
from harness.metrics._compute import columns, compute, text_pairs
from harness.problems import Problem

TASKS = ("reasoning",)
_MARKED = re.compile(r"#### (-?[\d.,]+)", re.ASCII)
_NUMBER = re.compile(r"-?[$\d.,]{2,}|-?\d+", re.ASCII)


def strict(text: str) -> str | None:
    """Returns the first number after "#### ", None where there is none."""
    found = _MARKED.search(text)
    return _plain(found[1]) if found else None


def flexible(text: str) -> str | None:
    """Returns the last number of the text, None where there is none."""
    found = _NUMBER.findall(text)
    return _plain(found[-1]) if found else None


def _plain(number: str) -> str:
    return number.replace(",", "").replace("$", "").removesuffix(".")


EXTRACTIONS = {"strict": strict, "flexible": flexible}


class SameNumber(evaluate.Metric):
    """Whether a prediction's number is the reference's, per row, as an `evaluate` metric."""

    def _info(self) -> evaluate.MetricInfo:
        inputs = "predictions: any text; references: a text with '#### number'"
        return text_pairs("Equality of final numbers.", "arXiv:2110.14168", inputs)

    def _compute(self, predictions, references, extraction: str) -> dict[str, list[bool]]:
        extract = EXTRACTIONS[extraction]
        return {"hits": [extract(p) == strict(r) for p, r in zip(predictions, references, strict=True)]}


def score(
    rows: Iterable[Mapping[str, Any]], *, extraction: Literal["strict", "flexible"] = "strict"
) -> dict[str, Score]:
    """Share of right final numbers in percent, by strict and by flexible extraction.

    Args:
        rows: Prediction rows with the strings `prediction` and `reference`; the reference ends in "#### number".
        extraction: Which of the two is the headline `exact_match`; the other is `exact_match_strict` or `_flexible`.

    Raises:
        Problem: A reference has no "#### number".
    """
    predictions, references = columns(rows, "prediction", "reference")
    for index, reference in enumerate(references):
        if strict(reference) is None:
            raise Problem("the reference has no '#### number'", where=f"row {index}")
    (other,) = EXTRACTIONS.keys() - {extraction}
    names = {"exact_match": extraction, f"exact_match_{other}": other}
    return {name: _share(predictions, references, each) for name, each in names.items()}


def _share(predictions: list[str], references: list[str], extraction: str) -> Score:
    hits = compute(SameNumber, predictions=predictions, references=references, extraction=extraction)["hits"]
    value, error = mean(hits)
    error = None if error is None else 100 * error
    return Score(100 * value, error, len(hits), f"gsm8k {extraction} extraction", True)
