"""Ours beside the paper's: records and reference cells as one tidy table, a row a cell and metric, with what is missing.

    mean over seeds;  s.e. = sqrt(sum (x - mean)^2 / (n - 1) / n);  gap = mean - paper

Every cell of the grid has its rows whether it was run or not, and every number that could not be read of the paper is an
explicit blank. Scores of unlike protocols (another tokeniser, window or split) are refused, because their difference says
nothing of the methods.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.problems import Problem

if TYPE_CHECKING:
    from harness.spec.entry import Entry
    from harness.spec.grid import Cell

DENSE, ONE_SHOT = "dense", "one_shot"
NOT_RUN, NOT_GIVEN = "not run", "not given in what could be read"
ROW_AXES = ("prune.sparsity", "prune.pattern")
"""The axes that run down a table and along a plot, the first that the grid has; else its first axis."""


@dataclass(frozen=True)
class Comparison:
    """One entry at one scale, ours beside the paper's.

    Attributes:
        entry, title, scale, model, data: As in the records.
        paper: `id`, `table` and `name` of the paper; None where the entry stands in none.
        unlike: Why our levels cannot be compared with the paper's, or None where they can.
        axis: The axis that runs down the table.
        unit: The reference's unit, "" where there is none.
        frame: One row a cell and metric, columns: label, baseline ("dense", "one_shot" or None), row (label on `axis`),
            arm (labels on the other axes, joined with "/"), evaluation, metric, mean, stderr (over seeds; NaN below two),
            n (seeds), expected (seeds asked for), sampling (mean standard error over the rows of the test set), protocol,
            higher_is_better, paper, read (the place of the paper's number), gap, reached (sparsity of the pruned layers).
    """

    entry: str
    title: str
    scale: str
    model: str
    data: str
    paper: Mapping[str, str] | None
    unlike: str | None
    axis: str
    unit: str
    frame: pd.DataFrame

    def headlines(self) -> list[tuple[str, str]]:
        """Returns evaluation and first metric of every evaluation that has a number, ours or the paper's."""
        pairs = dict.fromkeys(zip(self.frame["evaluation"], self.frame["metric"], strict=True))
        first: dict[str, str] = {}
        for evaluation, metric in pairs:
            first.setdefault(evaluation, metric)
        return list(first.items())

    def select(self, evaluation: str, metric: str) -> pd.DataFrame:
        """Returns the rows of one metric, a row a cell, in the grid's order."""
        return self.frame[(self.frame["evaluation"] == evaluation) & (self.frame["metric"] == metric)]
