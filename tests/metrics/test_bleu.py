"""BLEU: cases worked by hand, and the number of sacrebleu's own command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from harness.metrics import bleu
from harness.problems import Problem

PAIRS = [
    ("Der Hund schläft heute im Garten.", "Der Hund schläft im Garten."),
    ("Am 3. Mai 2021 kamen 12 Gäste.", "Am 3. Mai 2021 kamen zwölf Gäste."),
    ("Sie liest ein Buch über Brot", "Sie liest ein altes Buch über Brot."),
]


def rows(pairs):
    return [{"prediction": prediction, "reference": reference} for prediction, reference in pairs]


def test_worked_by_hand():
    found = bleu.score(rows([("the cat sat on the mat", "the cat sat on a mat")]))["bleu"]
    precisions = (5 / 6) * (3 / 5) * (2 / 4) * (1 / 3)  # of 1- to 4-grams; equal lengths, so no brevity penalty
    assert found.value == pytest.approx(100 * precisions**0.25)
    assert found.stderr is None and found.count == 1 and found.higher_is_better


def test_short_predictions_pay_the_brevity_penalty():
    found = bleu.score(rows([("one two three four", "one two three four five")]))["bleu"]
    assert found.value == pytest.approx(100 * 2.718281828 ** (1 - 5 / 4))


def test_equals_sacrebleus_command_line(tmp_path):
    (tmp_path / "hyp").write_text("\n".join(p for p, _ in PAIRS), encoding="utf8")
    (tmp_path / "ref").write_text("\n".join(r for _, r in PAIRS), encoding="utf8")
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "ref"), "-i", str(tmp_path / "hyp"), "-w", "8"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    found = bleu.score(rows(PAIRS))["bleu"]
    assert found.value == pytest.approx(said["score"], abs=1e-7) and 20 < found.value < 80
    assert found.protocol == f"sacrebleu {said['signature']}"


def test_the_error_is_repeatable_and_grows_with_fewer_sentences():
    many, few = rows(PAIRS * 20), rows(PAIRS * 3)
    first, again = bleu.score(many)["bleu"], bleu.score(many)["bleu"]
    assert first == again
    assert 0 < first.stderr < bleu.score(few)["bleu"].stderr
    assert bleu.score(many, resamples=0)["bleu"].stderr is None


def test_options_change_number_and_protocol():
    pairs = [("THE CAT SAT ON THE MAT", "the cat sat on the mat")]
    plain, lowered = bleu.score(rows(pairs))["bleu"], bleu.score(rows(pairs), lowercase=True)["bleu"]
    assert plain.value == 0 and lowered.value == pytest.approx(100)
    assert "case:mixed" in plain.protocol and "case:lc" in lowered.protocol


def test_white_space_around_a_text_is_no_error():
    assert bleu.score(rows([(" a b c d e\n", "a b c d e")]))["bleu"].value == pytest.approx(100)


def test_nothing_to_score():
    with pytest.raises(Problem, match="no predictions"):
        bleu.score([])
    with pytest.raises(Problem, match="no reference"):
        bleu.score([{"prediction": "a"}])
