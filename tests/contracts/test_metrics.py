"""What every metric promises; a new file in `harness/metrics` is checked here by itself."""

from __future__ import annotations

import copy
import inspect
import math

import pytest

from harness import rooms
from harness.metrics import Score

ROOM = rooms.ROOMS["metric"]


def row(index):
    """A prediction row with what any task writes."""
    reference = f"one two three four {index}\n#### {index}"
    prediction = reference if index % 3 else f"one two three five {index}\n#### {index + 1}"
    return {
        "prediction": prediction,
        "reference": reference,
        "normaliser": "a normaliser",
        "normalised": {"prediction": prediction.lower(), "reference": reference.lower()},
        "protocol": "a protocol",
        "nll": 3.0 + index % 4,
        "tokens": 5,
        "words": 4,
        "bytes": 20,
        "task": f"task{index % 2}",
        "acc": float(index % 3 != 0),
        "acc_norm": float(index % 2),
    }


ROWS = [row(index) for index in range(12)]


@pytest.fixture(params=ROOM.names())
def metric(request):
    return request.param, rooms.bind("metric", request.param)


def test_the_first_score_is_the_headline_and_has_the_files_name(metric):
    name, score = metric
    scores = score(ROWS)
    assert next(iter(scores)) == name and all(isinstance(each, Score) for each in scores.values())
    for each in scores.values():
        assert math.isfinite(each.value) and each.protocol and isinstance(each.higher_is_better, bool)
        assert 1 <= each.count <= len(ROWS)
        assert each.stderr is None or each.stderr >= 0
    assert scores[name].count == len(ROWS)


def test_rows_may_come_one_by_one_and_are_left_as_they_were(metric):
    _, score = metric
    kept = copy.deepcopy(ROWS)
    assert score(iter(ROWS)) == score(ROWS) and kept == ROWS


def test_the_order_of_the_rows_changes_no_value(metric):
    _, score = metric
    found, turned = score(ROWS), score(ROWS[::-1])
    assert {name: each.value for name, each in turned.items()} == pytest.approx(
        {name: each.value for name, each in found.items()}
    )


def test_worse_predictions_score_worse(metric):
    name, score = metric
    wrong = {"prediction": "nothing", "normalised": {"prediction": "nothing", "reference": "one two"}}
    bad = [{**each, **wrong, "nll": 50.0, "acc": 0.0, "acc_norm": 0.0} for each in ROWS]
    good, worse = score(ROWS)[name], score(bad)[name]
    assert (worse.value < good.value) == good.higher_is_better and worse.value != good.value


def test_options_have_defaults_and_help(metric):
    name, _ = metric
    method = ROOM.method(name)
    assert method.needs == ("rows",) and method.summary.endswith(".")
    assert all(option.default != rooms.REQUIRED for option in method.options.values())
    function = rooms.load("metric", name).score
    assert all(f"{option}:" in function.__doc__ for option in inspect.signature(function).parameters)
