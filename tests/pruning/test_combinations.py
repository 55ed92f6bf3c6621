"""Pruning methods that cannot go together are refused when an entry is read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.spec.sections import Prune

BASE = {"data": "prose", "task": "language_modelling"}


def said(**section):
    with pytest.raises(ValidationError) as raised:
        Prune.model_validate({**BASE, **section})
    return str(raised.value)


def test_what_goes_together_is_taken_with_its_defaults_written_out():
    made = Prune.model_validate(
        {**BASE, "criterion": "wanda", "refiner": "dsnot", "sparsity": 0.6, "skip": ["*.v_proj"]}
    )
    assert made.refiner.startswith("dsnot:cycles=50,threshold=0.1") and made.skip == ("*.v_proj",)
    assert (made.ramp, made.dtype, made.search_split) == ("one_shot", "float32", "validation")
    made = Prune.model_validate({**BASE, "solver": "sparsegpt", "ramp": "cubic:steps=3", "sparsity": 0.7})
    assert made.ramp == "cubic:steps=3,start=0.0"


@pytest.mark.parametrize(
    ("section", "text"),
    [
        (
            {"criterion": "wanda", "pattern": "2:4", "allocation": "owl"},
            "owl gives every layer its own sparsity, and 2:4",
        ),
        (
            {"criterion": "wanda", "pattern": "2:4", "ramp": "cubic"},
            "cubic goes over several sparsities, and 2:4 has one",
        ),
        (
            {"solver": "sparsegpt", "allocation": "global_threshold", "sparsity": 0.5},
            "compares the scores of a criterion",
        ),
        ({"solver": "sparsegpt", "refiner": "dsnot", "sparsity": 0.5}, "dsnot edits the mask of a criterion"),
        (
            {"criterion": "wanda", "pattern": "block", "refiner": "dsnot", "sparsity": 0.5},
            "dsnot breaks the pattern block",
        ),
        ({"criterion": "wanda", "ramp": "chain:through=0.5", "sparsity": 0.4}, "a chain through 0.5 cannot end at 0.4"),
        ({"criterion": "wanda", "ramp": "cubic:steps=0", "sparsity": 0.4}, "steps=0 should be at least 1"),
        ({"criterion": "wanda", "search_data": "cldr_pairs", "sparsity": 0.4}, "reads text data"),
        ({"criterion": "wanda", "search_task": "translation", "sparsity": 0.4}, "'translation' reads translation data"),
        ({"criterion": "wanda", "search_task": "zero_shot", "sparsity": 0.4}, "'zero_shot' only evaluates"),
        ({"criterion": "wanda", "dtype": "int8", "sparsity": 0.4}, "float16"),
    ],
)
def test_what_cannot_be_is_refused(section, text):
    assert text in said(**section)


def test_a_search_may_have_data_and_task_of_another_kind():
    own = {"search_data": "cldr_pairs", "search_task": "translation"}
    made = Prune.model_validate({**BASE, "criterion": "wanda", "sparsity": 0.4, **own})
    assert made.search_task.startswith("translation:") and made.task.startswith("language_modelling:")


@pytest.mark.parametrize(
    ("own", "key"),
    [
        ({"search_data": "cldr_pairs"}, "search_data"),
        ({"search_task": "translation"}, "search_data"),
        ({"search_task": "zero_shot"}, "search_task"),
    ],
)
def test_a_search_that_does_not_agree_is_told_at_its_own_setting(own, key):
    with pytest.raises(ValidationError) as raised:
        Prune.model_validate({**BASE, "criterion": "wanda", "sparsity": 0.4, **own})
    assert [error["ctx"]["key"] for error in raised.value.errors()] == [key]


def test_each_refusal_says_what_to_do():
    assert "mixed_nm:m=4" in said(criterion="wanda", pattern="2:4", allocation="owl")
    assert "criterion: sparsegpt" in said(solver="sparsegpt", refiner="dsnot", sparsity=0.5)
