"""The suites' documents: a question, four choices, and which is right, drawn from the test rows of a data set.

lm-eval calls these functions as a task's `custom_dataset`, with the task's `metadata` and `dataset_kwargs`. Wrong
choices are right ones of other rows, or numbers near the right one; all draws are seeded by the row's place.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets

from harness import rooms

CHOICES = 4


def translations(*, data: str, count: int, **_: Any) -> dict[str, datasets.Dataset]:
    """The German of an English phrase, among the German of others; the question is T5's prefix and the phrase."""
    rows = _rows(data)
    targets = list(dict.fromkeys(row["target"] for row in rows))
    questions = ((f"translate English to German: {row['source']}", row["target"]) for row in rows)
    return _suite(count, ((question, right, targets) for question, right in questions))


def results(*, data: str, count: int, **_: Any) -> dict[str, datasets.Dataset]:
    """The result of the last calculation of a worked answer, shown up to its "=", among numbers at most 9 away."""

    def documents() -> Iterator[tuple[str, str, list[str]]]:
        for row in _rows(data):
            value = int(row["answer"].rpartition(" ")[2].replace(",", ""))
            shown = row["answer"][: row["answer"].rindex("=") + 1]  # ends in a mark, "... <<20-9="
            yield row["question"] + shown, f"{value}", [f"{value + step}" for step in range(-9, 10)]

    return _suite(count, documents())


def continuations(*, data: str, count: int, shown: int, asked: int, **_: Any) -> dict[str, datasets.Dataset]:
    """The next `asked` words after the first `shown` of a text, among words from the same place of other texts."""
    texts = [words for row in _rows(data) if len(words := row["text"].split()) >= shown + asked]
    spans = [" ".join(words[shown : shown + asked]) for words in texts]
    pairs = zip((" ".join(words[:shown]) for words in texts), spans, strict=True)
    return _suite(count, ((question, right, spans) for question, right in pairs))


def _rows(data: str) -> Sequence[Mapping[str, Any]]:
    return rooms.bind("data", data)("test")


def _suite(count: int, documents: Iterable[tuple[str, str, Sequence[str]]]) -> dict[str, datasets.Dataset]:
    """Makes a test split of the first `count` (question, right choice, where to draw the wrong ones from)."""
    made = []
    for index, (question, right, pool) in zip(range(count), documents, strict=False):
        draw = random.Random(index)
        wrong = draw.sample(sorted(set(pool) - {right}), CHOICES - 1)
        place = draw.randrange(CHOICES)
        made.append({"question": question, "choices": [*wrong[:place], right, *wrong[place:]], "label": place})
    return {"test": datasets.Dataset.from_list(made)}
