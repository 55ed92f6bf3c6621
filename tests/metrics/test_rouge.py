"""ROUGE: cases worked by hand."""

from __future__ import annotations

import pytest

from harness.metrics import rouge
from harness.problems import Problem


def rows(*pairs):
    return [{"prediction": prediction, "reference": reference} for prediction, reference in pairs]


def test_worked_by_hand():
    found = rouge.score(rows(("The cat sat.", "the cat lay down")))
    assert found["rouge1"].value == pytest.approx(100 * 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert found["rouge2"].value == pytest.approx(100 * 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert found["rougeL"].value == found["rouge1"].value and found["rouge1"].stderr is None


def test_only_rouge_lsum_reads_lines():
    found = rouge.score(rows(("b c\na", "a\nb c")))
    assert found["rougeLsum"].value == pytest.approx(100) and found["rougeL"].value < 100


def test_the_headline_is_the_chosen_kind_and_rows_count_alike():
    pairs = rows(("one two", "one two"), ("three", "four"))
    found = rouge.score(pairs, kind="rouge2")
    assert found["rouge"] == found["rouge2"] and found["rouge1"].value == 50 and found["rouge1"].stderr == 50
    assert "rouge_score rouge2 F1" in found["rouge"].protocol


def test_stemming_is_an_option():
    pairs = rows(("running", "runs"))
    assert rouge.score(pairs)["rouge1"].value == 0 and rouge.score(pairs, stem=True)["rouge1"].value == 100


def test_rows_of_another_task_are_refused():
    with pytest.raises(Problem, match="no reference"):
        rouge.score([{"prediction": "one"}])
