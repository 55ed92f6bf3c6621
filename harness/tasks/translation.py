"""Translation with an encoder-decoder, in T5's form (Raffel et al., arXiv:1910.10683): a prefix names the languages.

    source: "translate English to German: " + text,   target: text

Both are cut at their maximum; padding is dynamic and scored nowhere. Defaults are those of the SquareHead authors'
sparse T5 stages: sources of at most 1,024 tokens, targets of 128, beam search with 5 beams and length penalty 1. Their
`max_length` 128 counts the decoder's start token, `max_new_tokens` does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.data._rows import Rows
from harness.ranges import Count
from harness.tasks._batches import Predictions, in_batches, labelled
from harness.tasks._generate import beside_targets

READS = "translation"
METRIC = "bleu"
collate = labelled


def _source(text: str, processor: Any, source_language: str, target_language: str, max_source: int) -> list[int]:
    prefix = f"translate {source_language} to {target_language}: "
    return processor(prefix + text, truncation=True, max_length=max_source).input_ids


def examples(
    rows: Sequence[Mapping[str, str]],
    processor: Any,
    *,
    source_language: str = "English",
    target_language: str = "German",
    max_source: Count = 1024,
    max_target: Count = 128,
) -> Sequence[dict[str, list[int]]]:
    """Source and target tokens of each pair.

    Args:
        rows: Rows with `source` and `target`.
        processor: The tokenizer.
        source_language: Name of the source language in the prefix.
        target_language: Name of the target language in the prefix.
        max_source: Tokens after which a source, prefix included, is cut.
        max_target: Tokens after which a target is cut.

    Returns:
        `input_ids` and `labels` each, both with the end token.
    """

    def make(row: Mapping[str, str]) -> dict[str, list[int]]:
        labels = processor(text_target=row["target"], truncation=True, max_length=max_target).input_ids
        source = _source(row["source"], processor, source_language, target_language, max_source)
        return {"input_ids": source, "labels": labels}

    return Rows(rows, make)


def texts(row: Mapping[str, str]) -> list[str]:
    """Returns the pair, the source with the default prefix, which the tokenizer meets in every source."""
    return ["translate English to German: " + row["source"], row["target"]]


def predict(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, str]],
    start: int,
    batch_size: int,
    *,
    source_language: str = "English",
    target_language: str = "German",
    max_source: Count = 1024,
    beams: Count = 5,
    max_new_tokens: Count = 128,
    length_penalty: float = 1.0,
) -> Predictions:
    """Translation by beam search, in T5's "translate English to German: " form.

    Args:
        model: The encoder-decoder.
        processor: The tokenizer.
        rows: Rows with `source` and `target`.
        start: Rows done before.
        batch_size: Sources a batch.
        source_language: Name of the source language in the prefix.
        target_language: Name of the target language in the prefix.
        max_source: Tokens after which a source is cut.
        beams: Beams; 1 is greedy search.
        max_new_tokens: Most tokens of a translation.
        length_penalty: Exponent of the length that a beam's log-likelihood is divided by; unused with 1 beam.

    Returns:
        Rows with `source`, `prediction` and `reference`, the last two stripped.
    """
    settings = {"num_beams": beams, "max_new_tokens": max_new_tokens}
    if beams > 1:
        settings |= {"length_penalty": length_penalty, "early_stopping": False}

    def translate(batch: list[Mapping[str, str]]) -> list[dict[str, str]]:
        tokens = [_source(row["source"], processor, source_language, target_language, max_source) for row in batch]
        return beside_targets(model, processor, batch, tokens, **settings)

    return in_batches(rows, start, batch_size, translate)
