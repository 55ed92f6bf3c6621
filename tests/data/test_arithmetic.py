from __future__ import annotations

import re

import pytest

from harness.data import arithmetic
from harness.data._stories import STORIES, dressed, solved
from harness.problems import Problem

MARK = re.compile(r"<<([\d+*/-]+)=(\d+)>>(\d+)")


@pytest.mark.parametrize("split", arithmetic.SPLITS)
def test_marks_add_up_and_the_last_is_the_answer(split):
    for row in arithmetic.rows(split):
        *steps, last = row["answer"].split("\n")
        marks = [mark for step in steps for mark in MARK.findall(step)]
        assert len(marks) == len(steps) > 0
        for calculation, said, repeated in marks:
            assert eval(calculation) == int(said) == int(repeated)
        assert last == f"#### {marks[-1][1]}"
        assert "{" not in row["question"] + row["answer"]


def test_numbers_of_the_first_step_are_in_the_question():
    for row in arithmetic.rows("test"):
        numbers = set(re.findall(r"\d+", row["question"])) | {"2"}  # half
        assert set(re.findall(r"\d+", MARK.search(row["answer"])[1])) <= numbers


def test_a_story_by_hand():
    story = STORIES[4]
    steps = solved(story, (3, 4, 5))
    assert steps == [("3*4", 12), ("12-5", 7)]
    question, answer = dressed(story, (3, 4, 5), steps, "key")
    assert "3 bags with 4 " in question
    assert re.fullmatch(r"\w+ buys 3 \* 4 = <<3\*4=12>>12 \w+\.\n12 - 5 = <<12-5=7>>7 \w+ are left\.\n#### 7", answer)


def test_no_story_ends_below_one_or_in_a_fraction():
    assert solved(STORIES[4], (2, 2, 4)) is None
    assert solved(STORIES[3], (7, 2)) is None
    assert solved(STORIES[3], (8, 2)) == [("8/2", 4)]


def test_no_test_problem_is_a_training_problem_with_another_name():
    def bare(row) -> str:
        return re.sub(
            r"\b[A-Z][a-z]+\b(?= (has|fills|shares|buys|collects|reads|\w+))|\b[a-z]+s\b", "_", row["question"]
        )

    every = {bare(row) for row in arithmetic.rows("train", size=3000)}
    assert not every & {bare(row) for split in ("validation", "test") for row in arithmetic.rows(split)}


def test_size_is_bounded():
    assert len(arithmetic.rows("train", size=10)) == 10
    with pytest.raises(Problem, match="between 1 and"):
        arithmetic.rows("train", size=10**6)
