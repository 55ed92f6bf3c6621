"""Problems: a place, a sentence, the nearest choices, what to do; they survive a process border."""

from __future__ import annotations

import pickle

import pytest

from harness.problems import LONGEST, Problem, nearest, unknown

NAMES = ["wanda", "magnitude", "sparsegpt", "SparseGPT", "pruner_zero"]


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("it is wrong"), "it is wrong"),
        (Problem("it is wrong", where="x.yaml:3"), "x.yaml:3: it is wrong"),
        (Problem("it is wrong", nearest=["a", "b"]), "it is wrong\n  did you mean 'a' or 'b'?"),
        (Problem("no", where="x", nearest=["a"], hint="do it"), "x: no\n  did you mean 'a'?\n  do it"),
    ],
)
def test_a_problem_says_where_what_the_nearest_and_what_to_do(problem, text):
    assert str(problem) == text


def test_what_is_too_long_to_be_read_loses_its_middle():
    text = str(Problem(f"should be a number, not {'9' * 10**6}, at most 5", where="x" * 10**6, hint="do it"))
    assert len(text) < 2 * LONGEST + 30 and text.endswith("9, at most 5\n  do it") and "9 ... 9" in text
    assert str(Problem("a" * LONGEST)) == "a" * LONGEST


def test_a_problem_may_be_given_another_place():
    problem = Problem("no", where="x", nearest=["a"], hint="do it").at("y")
    assert str(problem) == "y: no\n  did you mean 'a'?\n  do it"
    assert str(problem.at(None)) == "no\n  did you mean 'a'?\n  do it"


def test_a_problem_crosses_a_process_whole():
    problem = Problem("no", where="x", nearest=["a"], hint="do it")
    again = pickle.loads(pickle.dumps(problem))
    assert vars(again) == vars(problem) and str(again) == str(problem)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("wandda", ["wanda"]),
        ("WANDA", ["wanda"]),
        ("pruner", ["pruner_zero"]),
        ("magnitud", ["magnitude"]),
        ("gpt", ["SparseGPT"]),
        ("xyz", []),
        ("", []),
    ],
)
def test_the_nearest_are_close_or_hold_the_name_whatever_its_case(name, found):
    assert nearest(name, NAMES) == found


def test_an_unknown_name_is_told_with_all_there_are():
    problem = unknown("criterion", "wandda", ["wanda", "magnitude"], "x.yaml:3")
    assert str(problem) == (
        "x.yaml:3: unknown criterion 'wandda'\n  did you mean 'wanda'?\n  there is: magnitude, wanda"
    )
    assert unknown("ramp", "x", []).hint == "there is no ramp at all"
