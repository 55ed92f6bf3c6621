"""Ranges of options: what each name admits, and that every numeric option of every room has one."""

from __future__ import annotations

import inspect
import math
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import ranges, rooms
from harness.ranges import RANGES, Range

UNBOUNDED = {("task", "translation", "length_penalty"), ("allocation", "atp", "beta")}
"""Options that may be any number: an exponent that favours long texts or short ones, a slope up or down."""


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("Count", [1, 10**9], [0, -1]),
        ("Whole", [0, 7], [-1]),
        ("Positive", [1e-300, 5.0], [0.0, -1e-300]),
        ("NonNegative", [0.0, 5.0], [-1e-300]),
        ("Fraction", [0.0, 0.5, 1.0], [-0.1, 1.0000001]),
        ("Sparsity", [0.0, 0.9999], [1.0, -0.1]),
    ],
)
def test_a_range_holds_its_own_ends_only(name, inside, outside):
    _, bounds = RANGES[name]
    assert all(value in bounds for value in inside) and not any(value in bounds for value in outside)
    assert math.nan not in bounds


def test_a_name_stands_for_its_type_and_its_bounds():
    assert set(RANGES) == {name for name, kind in vars(ranges).items() if typing.get_origin(kind) is typing.Annotated}
    for name, (plain, bounds) in RANGES.items():
        kind, own = typing.get_args(getattr(ranges, name))
        assert (kind.__name__, own) == (plain, bounds)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (Range(1), "at least 1"),
        (Range(0, low_open=True), "above 0"),
        (Range(0, 1), "at least 0 and at most 1"),
        (Range(0, 1, high_open=True), "at least 0 and below 1"),
        (Range(high=2), "at most 2"),
    ],
)
def test_a_range_says_its_ends(bounds, said):
    assert str(bounds) == said


@given(low=st.floats(-9, 9), width=st.floats(0, 9), value=st.floats(-20, 20), left=st.booleans(), right=st.booleans())
def test_bounds_are_those_of_an_interval(low, width, value, left, right):
    expected = low <= value <= low + width and not (left and value == low) and not (right and value == low + width)
    assert (value in Range(low, low + width, left, right)) is expected


OPTIONS = [
    (kind, name, option)
    for kind, room in rooms.ROOMS.items()
    for name in room.names()
    for option in room.method(name).options.values()
]


def parts(option):
    return {part.strip() for part in option.annotation.split("|")}


def numeric(option):
    number = isinstance(option.default, int | float) and not isinstance(option.default, bool)
    return number or bool(parts(option) & {"int", "float", *RANGES})


@pytest.mark.parametrize(("kind", "name", "option"), OPTIONS, ids=lambda each: getattr(each, "name", each))
def test_every_option_is_of_a_type_that_texts_are_checked_against(kind, name, option):
    known = option.annotation.startswith("Literal[") or parts(option) <= {*rooms.PLAIN, *RANGES}
    assert option.annotation and known, f"{kind} {name}: {option.name}: {option.annotation!r} is checked by nothing"


@pytest.mark.parametrize(
    ("kind", "name", "option"),
    [each for each in OPTIONS if numeric(each[2])],
    ids=lambda each: getattr(each, "name", each),
)
def test_every_number_has_a_range_or_may_be_any(kind, name, option):
    bounded = bool(parts(option) & RANGES.keys()) or option.annotation.startswith("Literal[")
    bounded = bounded and not parts(option) & {"int", "float"}
    assert bounded or (kind, name, option.name) in UNBOUNDED, f"{kind} {name}: {option.name} has no range"


def test_what_may_be_any_number_is_there():
    assert {(kind, name, option.name) for kind, name, option in OPTIONS if numeric(option)} >= UNBOUNDED


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("task", "translation:beams=0", "beams=0 should be at least 1"),
        ("task", "translation:max_source=0", "max_source=0 should be at least 1"),
        ("task", "translation:max_new_tokens=-3", "max_new_tokens=-3 should be at least 1"),
        ("task", "speech:beams=1.5", "beams=1.5 should be int"),
        ("task", "reasoning:shots=-1", "shots=-1 should be at least 0"),
        ("task", "zero_shot:shots=-1", "shots=-1 should be at least 0 or none"),
        ("loss", "kl:temperature=0", "temperature=0 should be above 0"),
        ("loss", "kl:temperature=1e999", "temperature=inf should be a finite number"),
        ("loss", "squarehead:eps=-1e-9", "eps=-1e-09 should be at least 0"),
        ("loss", "squarehead:eps=nan", "eps=nan should be a finite number"),
        ("schedule", "cosine:floor=1.5", "floor=1.5 should be at least 0 and at most 1"),
        ("metric", "bleu:resamples=-1", "resamples=-1 should be at least 0"),
        ("metric", "bleu:tokenize=13", "it may be: 13a, intl, char, zh, none"),
        ("data", "arithmetic:size=0", "size=0 should be at least 1"),
    ],
)
def test_what_is_outside_is_refused_by_its_text(kind, text, said):
    with pytest.raises(rooms.Problem) as caught:
        rooms.resolve(kind, text, "x.yaml:3")
    assert said in str(caught.value) and str(caught.value).startswith("x.yaml:3: ")


def test_every_default_is_inside_its_range():
    for kind, name, option in OPTIONS:
        if option.default is not rooms.REQUIRED:
            assert rooms.resolve(kind, f"{name}:{option.name}={rooms._write(option.default)}")


def test_an_option_with_a_range_is_the_plain_number_for_the_method():
    assert inspect.signature(rooms.bind("data", "arithmetic:size=7").func).parameters["size"].default == 2000
    assert rooms.bind("data", "arithmetic:size=7").keywords == {"size": 7}
