"""ROUGE of a text with one reference, as rouge_score computes it (Lin 2004), in percent.

    rouge<n>  F1 of the n-grams in common     rougeL  F1 of the longest common subsequence     rougeLsum  line by line

F1 = 2 P R / (P + R) for each row, then the mean over rows. Lower case, letters and digits only, by default no stemming:
what `evaluate`'s rouge does, the metric of Sparse Llama's stored evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import evaluate
from rouge_score.rouge_scorer import RougeScorer

from harness.metrics import Score, mean
from harness.metrics._compute import columns, compute, text_pairs

PACKAGES = ("rouge_score",)
TASKS = ("instruction", "translation", "text_to_text", "speech", "reasoning")
KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class Rouge(evaluate.Metric):
    """ROUGE as an `evaluate` metric: a mean and its standard error for each kind."""

    def _info(self) -> evaluate.MetricInfo:
        return text_pairs("ROUGE by rouge_score.", "aclanthology:W04-1013")

    def _compute(self, predictions, references, stem: bool) -> dict[str, tuple[float, float | None]]:
        scorer = RougeScorer(KINDS, use_stemmer=stem)
        found = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
        return {kind: mean([100 * each[kind].fmeasure for each in found]) for kind in KINDS}


def score(
    rows: Iterable[Mapping[str, Any]],
    *,
    kind: Literal["rouge1", "rouge2", "rougeL", "rougeLsum"] = "rougeLsum",
    stem: bool = False,
) -> dict[str, Score]:
    """ROUGE F1 by rouge_score, 0 to 100: the chosen kind, then all four.

    Args:
        rows: Prediction rows with the strings `prediction` and `reference`.
        kind: Which of the four is the headline `rouge`.
        stem: Whether words are stemmed first.
    """
    predictions, references = columns(rows, "prediction", "reference")
    found = compute(Rouge, predictions=predictions, references=references, stem=stem)
    scores = {
        name: Score(value, error, len(predictions), f"rouge_score {name} F1{', stemmed' if stem else ''}", True)
        for name, (value, error) in found.items()
    }
    return {"rouge": scores[kind], **scores}
