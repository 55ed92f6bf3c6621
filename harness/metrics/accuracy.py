"""Accuracy: the share of documents or pictures whose right choice has the highest score, per task and on average.

    zero_shot: acc: the highest sum of log-probabilities;  acc_norm: that divided by the choice's length in characters
    classification: acc: the highest logit (top-1)

The headline is the plain mean over the tasks, each task counting once, as the pruning papers average. The error of a
task is lm-eval's, from the variance over documents; that of the mean over tasks is sqrt(sum of squares) / tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import datasets
import evaluate

from harness.metrics import Score, mean
from harness.metrics._compute import columns, compute
from harness.problems import Problem
from harness.tasks.zero_shot import MEASURES

TASKS = ("zero_shot", "classification", "humaneval")


class TaskMeans(evaluate.Metric):
    """Mean and standard error per task, as an `evaluate` metric: predictions 0 or 1, references the task's name."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description="Means by task.",
            citation="",
            inputs_description="predictions: 0 or 1; references: task",
            features=features,
        )

    def _compute(self, predictions, references) -> dict[str, tuple[float, float | None, int]]:
        groups: dict[str, list[float]] = {}
        for task, hit in zip(references, predictions, strict=True):
            groups.setdefault(task, []).append(hit)
        return {task: (*mean(hits), len(hits)) for task, hits in groups.items()}


def score(rows: Iterable[Mapping[str, Any]], *, measure: Literal["acc", "acc_norm"] = "acc") -> dict[str, Score]:
    """Accuracy in percent: the mean over tasks, then every task's acc and acc_norm.

    Args:
        rows: Prediction rows of zero-shot or image classification: `task`, `protocol`, `acc` and, for most zero-shot
            tasks, `acc_norm`.
        measure: Which of the two is averaged into the headline `accuracy`.

    Raises:
        Problem: A task does not report the measure.
    """
    rows = list(rows)
    tasks, protocols = columns(rows, "task", "protocol")
    by_measure = {each: _tasks([row for row in rows if each in row], each) for each in MEASURES}
    if lacking := [task for task in dict.fromkeys(tasks) if task not in by_measure[measure]]:
        raise Problem(f"{', '.join(lacking)} reports no {measure}", hint="choose measure=acc, or leave the task out")
    chosen = by_measure[measure].values()
    errors = [task.stderr for task in chosen]
    error = None if None in errors else math.sqrt(sum(e * e for e in errors)) / len(errors)
    value = sum(task.value for task in chosen) / len(chosen)
    protocol = f"mean {measure} of " + "; ".join(dict.fromkeys(protocols))
    named = {f"{task}/{each}": score for each, scores in by_measure.items() for task, score in scores.items()}
    return {"accuracy": Score(value, error, len(rows), protocol, True), **dict(sorted(named.items()))}


def _tasks(rows: list[Mapping[str, Any]], measure: str) -> dict[str, Score]:
    if not rows:
        return {}
    hits, tasks, protocols = columns(rows, measure, "task", "protocol")
    protocol = dict(zip(tasks, protocols, strict=True))
    means = compute(TaskMeans, predictions=hits, references=tasks)
    return {
        task: Score(100 * value, None if error is None else 100 * error, count, f"{measure} of {protocol[task]}", True)
        for task, (value, error, count) in means.items()
    }
