"""What the tasks share: padded batches, and prediction in fixed batches that can be resumed.

A batch's other rows and its padding move the last bits of a model's output. So the batches are always cut at the same
places: a resumed prediction computes the broken batch again and gives the same bytes as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.models import IGNORED


@dataclass(frozen=True)
class Predictions:
    """Prediction rows to iterate over once, and how many a run from the first item gives.

    Attributes:
        total: All prediction rows, those before `start` included.
        rows: The rows from `start` on.
    """

    total: int
    rows: Iterator[dict[str, Any]]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.rows


def in_batches(
    items: Sequence[Any], start: int, size: int, predict: Callable[[list[Any]], list[dict[str, Any]]]
) -> Predictions:
    """Predicts items in order, in batches that begin at multiples of `size` wherever the prediction starts.

    Args:
        items: What is predicted, one prediction row each.
        start: Rows that are there already and are not given again.
        size: Items a batch.
        predict: From the items of one batch to their rows.
    """

    def rows() -> Iterator[dict[str, Any]]:
        for first in range(start - start % size, len(items), size):
            batch = [items[i] for i in range(first, min(first + size, len(items)))]
            yield from predict(batch)[max(start - first, 0) :]

    return Predictions(len(items), rows())


def padded(sequences: Sequence[Sequence[int]], value: int, *, left: bool = False) -> torch.Tensor:
    """Returns token sequences as one int64 tensor [batch, longest], filled up with `value` on the right or the left."""
    longest = max(len(s) for s in sequences)
    fill = [[value] * (longest - len(s)) for s in sequences]
    return torch.tensor([f + list(s) if left else list(s) + f for s, f in zip(sequences, fill, strict=True)])


def pad_id(tokenizer: Any) -> int:
    """Returns the id that fills up a batch: the pad token's, or the end token's where a tokenizer has no pad token.

    Which one it is changes no result: the attention mask hides it and labels hold IGNORED in its place.
    """
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def inputs(sequences: Sequence[Sequence[int]], tokenizer: Any, *, left: bool = False) -> dict[str, torch.Tensor]:
    """Returns padded `input_ids` and their `attention_mask`, each [batch, longest]."""
    mask = padded([[1] * len(s) for s in sequences], 0, left=left)
    return {"input_ids": padded(sequences, pad_id(tokenizer), left=left), "attention_mask": mask}


def labelled(features: Sequence[Mapping[str, list[int]]], processor: Any) -> dict[str, torch.Tensor]:
    """Returns a batch of examples that bring their labels, the `collate` of tasks that learn from written text.

    Args:
        features: `input_ids` and `labels` of each.
        processor: The tokenizer, which gives the padding id.

    Returns:
        `input_ids` and `attention_mask` [batch, longest], `labels` [batch, longest labels], padded on the right.
    """
    labels = padded([f["labels"] for f in features], IGNORED)
    return {**inputs([f["input_ids"] for f in features], processor), "labels": labels}
