"""Metrics, one a file: prediction rows in, named scores out; no model is needed and no hub is asked.

A file defines `score(rows, *, options) -> dict[str, Score]`. The first score is the headline and carries the file's
name; the others stand beside it (per task, under another normaliser, ...). Shares and rates are in percent, as papers
print them. Every number says its protocol: two scores may be compared only where the protocols are equal. `PACKAGES`
names the packages whose version can change a score; it is part of the evaluation's key. `TASKS` names the tasks whose
prediction rows it reads; a task's own `METRIC` need not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """One number of one evaluation.

    Attributes:
        value: The score.
        stderr: Its standard error over the rows (not over seeds); None where one row or the method gives none.
        count: Rows behind it: sentences, utterances, windows, documents.
        protocol: What was computed, exactly enough to compare: names, versions, settings.
        higher_is_better: Whether a larger value is the better one.
    """

    value: float
    stderr: float | None
    count: int
    protocol: str
    higher_is_better: bool


def mean(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean of at least one value and its standard error, sqrt(sum (x - mean)^2 / (n (n - 1)))."""
    return ratio(values, [1] * len(values))


def ratio(tops: Sequence[float], bottoms: Sequence[float]) -> tuple[float, float | None]:
    """Returns R = sum(tops) / sum(bottoms) over at least one row and its standard error by linearisation.

        s = sqrt(n / (n - 1) * sum (top - R bottom)^2) / sum(bottoms)

    Args:
        tops: Per row what is counted: errors, log-likelihoods.
        bottoms: Per row what it is divided by: words, tokens; their sum is not 0.

    Returns:
        R, and s; None for s where there is one row only.
    """
    n, total = len(tops), math.fsum(bottoms)
    value = math.fsum(tops) / total
    if n < 2:
        return value, None
    squares = math.fsum((top - value * bottom) ** 2 for top, bottom in zip(tops, bottoms, strict=True))
    return value, math.sqrt(n / (n - 1) * squares) / total
