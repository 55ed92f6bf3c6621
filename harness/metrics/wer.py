"""Word error rate of a corpus: edits over reference words, as jiwer aligns them.

    WER = 100 * (substitutions + deletions + insertions) / reference words

Two readings stand side by side: the texts as they are ("none": cased, with punctuation, as in the SquareHead authors'
script), and after Whisper's text normaliser ("whisper": Radford et al., arXiv:2212.04356, appendix C). The normaliser
depends on the language and, for English, on the spelling map that comes with the tokenizer; so the speech task applies
it and names it in every row, and this metric needs no tokenizer.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import evaluate
import jiwer

from harness.metrics import Score, ratio
from harness.metrics._compute import columns, compute, text_pairs
from harness.problems import Problem

PACKAGES = ("jiwer",)
TASKS = ("speech",)


class WordErrors(evaluate.Metric):
    """Word edits and reference words, per utterance, as an `evaluate` metric."""

    def _info(self) -> evaluate.MetricInfo:
        return text_pairs("Word edits by jiwer.", "arXiv:2212.04356")

    def _compute(self, predictions, references) -> dict[str, list[int]]:
        aligned = [jiwer.process_words(r, p) for r, p in zip(references, predictions, strict=True)]
        errors = [a.substitutions + a.deletions + a.insertions for a in aligned]
        return {"errors": errors, "words": [a.hits + a.substitutions + a.deletions for a in aligned]}


def score(rows: Iterable[Mapping[str, Any]], *, normaliser: Literal["none", "whisper"] = "none") -> dict[str, Score]:
    """Word error rate in percent, raw and after Whisper's text normaliser.

    Args:
        rows: Prediction rows of the speech task: `prediction`, `reference`, `normaliser` (a name) and
            `normalised`, a mapping with the same two texts after it.
        normaliser: Which of the two readings is the headline `wer`; the other is `wer_raw` or `wer_whisper`.

    Raises:
        Problem: No reference has a word.
    """
    names, normalised, *raw = columns(rows, "normaliser", "normalised", "prediction", "reference")
    readings = {
        "none": ("wer_raw", "no normaliser", raw),
        "whisper": ("wer_whisper", ", ".join(sorted(set(names))), columns(normalised, "prediction", "reference")),
    }
    headline = readings.pop(normaliser)
    (other,) = readings.values()
    return {"wer": _rate(*headline[1:]), other[0]: _rate(*other[1:])}


def _rate(name: str, texts: list[list[str]]) -> Score:
    predictions, references = texts
    found = compute(WordErrors, predictions=predictions, references=references)
    if not sum(found["words"]):
        raise Problem("no reference has a word, so there is no word error rate", where=name)
    value, error = ratio(found["errors"], found["words"])
    protocol = f"jiwer {importlib.metadata.version('jiwer')}; {name}"
    return Score(100 * value, None if error is None else 100 * error, len(references), protocol, False)
