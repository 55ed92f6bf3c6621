"""BLEU of a corpus with one reference, as sacrebleu computes it (Papineni et al. 2002; Post, arXiv:1804.08771).

    BLEU = 100 * BP * exp(1/4 sum_{n=1..4} log p_n),   BP = min(1, exp(1 - |references| / |predictions|))

The protocol is sacrebleu's signature. The standard error is sacrebleu's bootstrap: half the width of the 95% interval
over resampled corpora, divided by 1.96; its resampling is seeded, so that equal predictions give an equal error.
Predictions and references are stripped, as in the SquareHead authors' translation script.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import evaluate
from sacrebleu.metrics import BLEU

from harness.metrics import Score
from harness.metrics._compute import columns, compute, text_pairs
from harness.ranges import Whole

PACKAGES = ("sacrebleu",)
TASKS = ("translation", "text_to_text", "speech", "reasoning", "instruction")


class CorpusBleu(evaluate.Metric):
    """BLEU as an `evaluate` metric: one reference per prediction."""

    def _info(self) -> evaluate.MetricInfo:
        return text_pairs("Corpus BLEU by sacrebleu.", "arXiv:1804.08771")

    def _compute(self, predictions, references, tokenize: str, lowercase: bool, resamples: int) -> dict[str, Any]:
        bleu = BLEU(tokenize=tokenize, lowercase=lowercase)
        value = bleu.corpus_score(predictions, [references]).score
        signature = str(bleu.get_signature())
        error = None
        if resamples > 1 and len(predictions) > 1:
            error = bleu.corpus_score(predictions, [references], n_bootstrap=resamples)._ci / 1.96
        return {"bleu": value, "stderr": error, "signature": signature}


def score(
    rows: Iterable[Mapping[str, Any]],
    *,
    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a",
    lowercase: bool = False,
    resamples: Whole = 1000,
) -> dict[str, Score]:
    """BLEU by sacrebleu, 0 to 100.

    Args:
        rows: Prediction rows with the strings `prediction` and `reference`.
        tokenize: sacrebleu's tokeniser.
        lowercase: Whether case is ignored.
        resamples: Bootstrap samples for the standard error; 0 for none.
    """
    predictions, references = ([text.strip() for text in c] for c in columns(rows, "prediction", "reference"))
    options = {"tokenize": tokenize, "lowercase": lowercase, "resamples": resamples}
    found = compute(CorpusBleu, predictions=predictions, references=references, **options)
    protocol = f"sacrebleu {found['signature']}"
    return {"bleu": Score(found["bleu"], found["stderr"], len(predictions), protocol, True)}
