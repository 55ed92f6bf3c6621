"""Fixed batches: a prediction that resumes anywhere sees the same batches as one that never stopped."""

from __future__ import annotations

import pytest

from harness import rooms
from harness.models import IGNORED
from harness.tasks._batches import in_batches, labelled, padded


@pytest.mark.parametrize("start", range(8))
def test_resumed_batches_are_the_same_batches(start):
    seen = []

    def predict(batch):
        seen.append(list(batch))
        return [{"item": item, "with": batch[0]} for item in batch]

    whole = list(in_batches(range(7), 0, 3, predict))
    seen.clear()
    predictions = in_batches(range(7), start, 3, predict)
    assert predictions.total == 7
    assert list(predictions) == whole[start:]
    assert all(batch in ([0, 1, 2], [3, 4, 5], [6]) for batch in seen)


def test_nothing_is_predicted_before_it_is_asked_for():
    def predict(batch):
        raise AssertionError

    assert in_batches(range(3), 0, 2, predict).total == 3


def test_padding_on_either_side():
    assert padded([[1, 2, 3], [4]], 0).tolist() == [[1, 2, 3], [4, 0, 0]]
    assert padded([[1, 2, 3], [4]], 9, left=True).tolist() == [[1, 2, 3], [9, 9, 4]]


def test_labels_are_padded_by_their_own_length_and_not_scored_there():
    class Tokenizer:
        pad_token_id = 7

    batch = labelled([{"input_ids": [1, 2, 3], "labels": [1]}, {"input_ids": [4], "labels": [5, 6]}], Tokenizer)
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, IGNORED], [5, 6]]


def test_tasks_of_written_answers_share_one_collate():
    assert {rooms.load("task", name).collate for name in ("instruction", "reasoning", "translation")} == {labelled}
