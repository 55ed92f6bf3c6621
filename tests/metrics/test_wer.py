"""Word error rate: edits counted by hand, raw and normalised side by side."""

from __future__ import annotations

import pytest

from harness.metrics import wer
from harness.problems import Problem

NAME = "whisper-english normaliser"


def row(prediction, reference):
    clean = {"prediction": prediction.lower().strip("."), "reference": reference.lower().strip(".")}
    return {"prediction": prediction, "reference": reference, "normaliser": NAME, "normalised": clean}


ROWS = [
    row("the cat sat on mat", "the cat sat on the mat"),  # a deletion in 6 words
    row("A dog.", "a dog"),  # 2 substitutions in 2 words, none after normalising
    row("one more word here", "one word here"),  # an insertion in 3 words
]


def test_worked_by_hand():
    found = wer.score(ROWS)
    assert list(found) == ["wer", "wer_whisper"]
    assert found["wer"].value == pytest.approx(100 * 4 / 11)
    assert found["wer_whisper"].value == pytest.approx(100 * 2 / 11)
    assert found["wer"].count == 3 and not found["wer"].higher_is_better
    # errors - rate * words: 1 - 24/11, 2 - 8/11, 1 - 12/11
    residuals = [-13 / 11, 14 / 11, -1 / 11]
    expected = 100 * (3 / 2 * sum(r * r for r in residuals)) ** 0.5 / 11
    assert found["wer"].stderr == pytest.approx(expected)


def test_the_headline_is_an_option_and_both_are_kept():
    raw, normal = wer.score(ROWS), wer.score(ROWS, normaliser="whisper")
    assert list(normal) == ["wer", "wer_raw"]
    assert normal["wer"] == raw["wer_whisper"] and normal["wer_raw"] == raw["wer"]
    assert NAME in normal["wer"].protocol and "no normaliser" in raw["wer"].protocol


def test_more_errors_than_words_is_above_100():
    assert wer.score([row("a b c", "d")])["wer"].value == pytest.approx(300)


def test_an_empty_reference_costs_its_insertions():
    assert wer.score([row("uh", ""), row("yes", "yes")])["wer"].value == pytest.approx(100)


def test_no_word_at_all_is_a_problem():
    with pytest.raises(Problem, match="no reference has a word"):
        wer.score([row("a", ""), row("b", "")])


def test_rows_of_another_task_are_a_problem():
    with pytest.raises(Problem, match="no normaliser"):
        wer.score([{"prediction": "a", "reference": "a"}])
