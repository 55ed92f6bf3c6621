"""Exact match: numbers found by hand, and by lm-eval's own filters of its task gsm8k."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.metrics import exact_match
from harness.problems import Problem

TEXTS = [
    "3 + 4 = 7\n#### 7",
    "so #### 1,234.",
    "#### $5",
    "the answer is 12 apples.",
    "it costs $1,200.50. Yes",
    "no number",
    "#### -3 and then 8",
    "####7",
    "a 3-4 b",
    "2.",
    "#### 10 #### 11",
    "...",
    "1..2 -",
    "",
]


def rows(*predictions, reference="work\n#### 7"):
    return [{"prediction": p, "reference": reference} for p in predictions]


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("3 + 4 = 7\n#### 7", "7", "7"),
        ("so #### 1,234.", "1234", "1234"),
        ("#### $5", None, "5"),
        ("the answer is 12 apples.", None, "12"),
        ("no number", None, None),
        ("#### -3 and then 8", "-3", "8"),
    ],
)
def test_numbers_found_by_hand(text, strict, flexible):
    assert exact_match.strict(text) == strict and exact_match.flexible(text) == flexible


@pytest.mark.parametrize("text", TEXTS)
def test_numbers_are_those_of_lm_eval(text):
    from lm_eval.filters.extraction import RegexFilter

    filters = {
        "strict": RegexFilter(regex_pattern=r"#### (\-?[0-9\.\,]+)"),
        "flexible": RegexFilter(regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1),
    }
    for name, each in filters.items():
        (theirs,) = each.apply([[text]], [SimpleNamespace()])[0]
        ours = exact_match.EXTRACTIONS[name](text)
        theirs = None if theirs == "[invalid]" else theirs.replace(",", "").replace("$", "").removesuffix(".")
        assert ours == theirs


def test_shares_worked_by_hand():
    found = exact_match.score(rows("#### 7", "so 7", "#### 8", "#### 7.0"))
    assert list(found) == ["exact_match", "exact_match_flexible"]
    assert found["exact_match"].value == 25 and found["exact_match_flexible"].value == 50
    assert found["exact_match"].stderr == pytest.approx(100 * (0.25 * 0.75 / 3) ** 0.5)
    assert "strict" in found["exact_match"].protocol and found["exact_match"].count == 4


def test_the_headline_is_an_option():
    found = exact_match.score(rows("so 7", "#### 7"), extraction="flexible")
    assert found["exact_match"].value == 100 and found["exact_match_strict"].value == 50


def test_a_reference_without_number_is_a_problem():
    with pytest.raises(Problem, match="row 1: the reference has no '#### number'"):
        exact_match.score([*rows("1"), {"prediction": "1", "reference": "seven"}])
