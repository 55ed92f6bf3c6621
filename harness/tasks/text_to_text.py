"""Text to text with an encoder-decoder (T5: Raffel et al., arXiv:1910.10683): reads a source, writes a target.

Both are taken as they stand: a prefix that tells the model what to do ("summarize: ") is the source's own, where
`translation` writes one. Both are cut at 512 tokens, the lengths of the paper's fine-tuning; padding is dynamic and
scored nowhere. Targets are generated greedily, as in the paper's section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.data._rows import Rows
from harness.problems import Problem
from harness.ranges import Count
from harness.tasks._batches import Predictions, in_batches, labelled
from harness.tasks._generate import beside_targets

READS = "pair"
METRIC = "rouge"
collate = labelled


def examples(
    rows: Sequence[Mapping[str, Any]], processor: Any, *, max_source: Count = 512, max_target: Count = 512
) -> Sequence[dict[str, list[int]]]:
    """Source and target tokens of each pair; rows of ids are taken as they are.

    Args:
        rows: Rows with `source` and `target`, or all with `source_ids` and `target_ids`, which are never cut.
        processor: The tokenizer.
        max_source: Tokens after which a source is cut.
        max_target: Tokens after which a target is cut.

    Returns:
        `input_ids` and `labels` each; those of texts have the end token.

    Raises:
        Problem: Token ids are not the tokenizer's.
    """

    def make(index: int) -> dict[str, list[int]]:
        row = rows[index]
        if "source_ids" in row:
            return {"input_ids": _own(index, row, "source_ids"), "labels": _own(index, row, "target_ids")}
        labels = processor(text_target=row["target"], truncation=True, max_length=max_target).input_ids
        return {"input_ids": _source(row, processor, max_source), "labels": labels}

    def _own(index: int, row: Mapping[str, Any], column: str) -> list[int]:
        if max(row[column]) >= len(processor):
            said = f"token {max(row[column])} of {column} is none of the tokenizer's {len(processor)}"
            raise Problem(said, where=f"row {index}")
        return row[column]

    return Rows(range(len(rows)), make)


def _source(row: Mapping[str, Any], processor: Any, max_source: int) -> list[int]:
    return processor(row["source"], truncation=True, max_length=max_source).input_ids


def texts(row: Mapping[str, str]) -> list[str]:
    """Returns source and target."""
    return [row["source"], row["target"]]


def predict(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, str]],
    start: int,
    batch_size: int,
    *,
    max_source: Count = 512,
    beams: Count = 1,
    max_new_tokens: Count = 128,
) -> Predictions:
    """Targets written for sources as they stand, greedily by default.

    Args:
        model: The encoder-decoder.
        processor: The tokenizer.
        rows: Rows with `source` and `target`.
        start: Rows done before.
        batch_size: Sources a batch.
        max_source: Tokens after which a source is cut.
        beams: Beams; 1 is greedy search.
        max_new_tokens: Most tokens of a target.

    Returns:
        Rows with `source`, `prediction` and `reference`, the last two stripped.

    Raises:
        Problem: The rows are token ids.
    """

    def write(batch: list[Mapping[str, str]]) -> list[dict[str, str]]:
        if "source" not in batch[0]:
            raise Problem("these rows are token ids, and text is needed here", hint="ids calibrate and train")
        tokens = [_source(row, processor, max_source) for row in batch]
        return beside_targets(model, processor, batch, tokens, num_beams=beams, max_new_tokens=max_new_tokens)

    return in_batches(rows, start, batch_size, write)
