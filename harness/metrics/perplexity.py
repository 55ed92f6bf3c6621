"""Perplexity from negative log-likelihoods, per token or, where the task counted them, per word and per byte.

    ppl = exp( sum nll / sum units ),   bits per byte = sum nll / (bytes * log 2)

Over windows of equal length this is the exponential of the mean window loss, the number of the pruning papers
(SparseGPT, Wanda); over documents with whitespace words as units it is lm-eval's word_perplexity. The rows say which:
their `protocol` is the score's. Standard errors are those of the ratio over rows, carried through the exponential.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
import evaluate

from harness.metrics import Score, ratio
from harness.metrics._compute import columns, compute
from harness.problems import Problem

TASKS = ("language_modelling",)


class NegativeLogLikelihood(evaluate.Metric):
    """Mean negative log-likelihood per unit, in nats, as an `evaluate` metric: predictions nll, references units."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(
            description="Mean negative log-likelihood per unit.",
            citation="",
            inputs_description="predictions: nll in nats; references: units",
            features=features,
        )

    def _compute(self, predictions, references) -> dict[str, float | None]:
        value, error = ratio(predictions, references)
        return {"nll": value, "stderr": error}


def score(rows: Iterable[Mapping[str, Any]]) -> dict[str, Score]:
    """Perplexity per token of windows, or per whitespace word of documents.

    Args:
        rows: Prediction rows of the language-modelling task: `protocol`, `nll` (nats) and `tokens`; for documents also
            `words` and `bytes` of the original text.

    Raises:
        Problem: The rows mix protocols, or nothing was predicted.
    """
    rows = list(rows)
    protocols, nll, tokens = columns(rows, "protocol", "nll", "tokens")
    if len(set(protocols)) > 1:
        raise Problem(f"the predictions mix the protocols {', '.join(sorted(set(protocols)))}")
    if not sum(tokens):
        raise Problem("the predictions hold no token")
    per_token = _perplexity(nll, tokens, protocols[0])
    if "words" not in rows[0]:
        return {"perplexity": per_token}
    words, size = columns(rows, "words", "bytes")
    return {
        "perplexity": _perplexity(nll, words, protocols[0]),
        "token_perplexity": per_token,
        "byte_perplexity": _perplexity(nll, size, protocols[0]),
        "bits_per_byte": _bits(nll, size, protocols[0]),
    }


def _perplexity(nll: Sequence[float], units: Sequence[int], protocol: str) -> Score:
    found = compute(NegativeLogLikelihood, predictions=nll, references=units)
    value = math.exp(found["nll"]) if found["nll"] < 709 else math.inf
    error = None if found["stderr"] is None else value * found["stderr"]
    return Score(value, error, len(nll), protocol, False)


def _bits(nll: Sequence[float], size: Sequence[int], protocol: str) -> Score:
    value, error = ratio(nll, size)
    return Score(value / math.log(2), None if error is None else error / math.log(2), len(nll), protocol, False)
