from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.problems import Problem
from harness.runs.keys import Stage, canonical, version
from harness.sources import Source

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), VALUES, max_size=6), st.randoms())
def test_order_of_options_does_not_matter(options, random):
    shuffled = list(options.items())
    random.shuffle(shuffled)
    assert canonical(dict(shuffled)) == canonical(options)


@settings(max_examples=50)
@given(VALUES)
def test_canonical_text_survives_json(value):
    assert canonical(json.loads(canonical(value))) == canonical(value)
    assert canonical(json.loads(json.dumps(value))) == canonical(value)


@settings(max_examples=50)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_equal_exactly_when_their_texts_are(one, other):
    assert (canonical(one) == canonical(other)) == (one == other)


@settings(max_examples=50)
@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_whole_floats_are_integers(number):
    assert canonical(float(number)) == canonical(number)


@pytest.mark.parametrize("texts", [("0.5", "0.50"), ("1e-3", "0.001"), ("3e-05", "0.00003"), ("-0.0", "0")])
def test_a_number_has_one_text_however_it_is_written(texts):
    assert len({canonical(float(text)) for text in texts}) == 1


def test_what_only_looks_alike_differs():
    texts = [canonical(value) for value in (1, True, "1", None, [1], {"1": 1}, "None", 0.1)]
    assert len(set(texts)) == len(texts)
    assert canonical((1, 2)) == canonical([1, 2])


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_only_finite_numbers(number):
    with pytest.raises(ValueError, match=r"value\.lr\[1\]"):
        canonical({"lr": [0, number]})


def test_strange_values_are_refused_by_name():
    with pytest.raises(TypeError, match=r"value\.model is a object"):
        canonical({"model": object()})
    with pytest.raises(TypeError, match="key 1"):
        canonical({1: 2})


def test_everything_that_decides_is_in_the_key(fake):
    parent, other = Stage("prepare", {"lr": 1e-3}), Stage("prepare", {"lr": 2e-3})
    source = Source("hub", "org/name", "main")
    variants = [
        Stage("prune", {"sparsity": 0.5}, {"model": parent}),
        Stage("prune", {"sparsity": 0.6}, {"model": parent}),
        Stage("prune", {"sparsity": 0.5, "samples": 1}, {"model": parent}),
        Stage("prune", {"sparsity": 0.5}, {"model": other}),
        Stage("prune", {"sparsity": 0.5}, {"teacher": parent}),
        Stage("prune", {"sparsity": 0.5}, {}, {"model": source}),
        Stage("prune", {"sparsity": 0.5}, {}, {"model": Source("hub", "org/name", "v2")}),
        Stage("tune", {"sparsity": 0.5}, {"model": parent}),
    ]
    assert len({stage.key for stage in variants}) == len(variants)


def test_what_does_not_decide_is_not_in_the_key(fake, tmp_path):
    plain = Stage("tune", {"lr": 0.001}, sources={"data": Source("mirror", "a/b", "sha256:1", tmp_path)})
    moved = Source("mirror", "a/b", "sha256:1", tmp_path / "elsewhere")
    same = Stage("tune", {"lr": 1e-3}, sources={"data": moved}, handling={"checkpoint_every": 7}, slug="slug")
    assert plain == same and hash(plain) == hash(same) and plain.folder != same.folder
    assert same.folder == f"tune/slug-{plain.key[:10]}" and plain.folder == f"tune/{plain.key[:10]}"


def test_version_is_read_from_the_source_and_changes_the_key(fake):
    before = Stage("tune", {}).key
    (fake.folder / "tune.py").write_text("import nothing_of_this_name\nVERSION = 12\n")
    assert version("tune") == 12 and Stage("tune", {}).key != before


def test_a_stage_without_version_is_named(fake):
    (fake.folder / "tune.py").write_text("VERSION = '1'\n")
    with pytest.raises(ValueError, match=r"tune\.py has no line VERSION"):
        version("tune")


def test_unknown_stage():
    with pytest.raises(Problem, match="unknown stage 'prine'") as problem:
        version("prine")
    assert problem.value.nearest[0] == "prune"
