from __future__ import annotations

import json

import pytest

from harness.data import _jsonl, jsonl_pairs
from harness.problems import Problem


@pytest.fixture
def written(tmp_path):
    """Writes objects and returns the file."""

    def write(*rows, name="pairs.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
        return path

    return write


def test_rows_hold_source_and_target_and_no_other_column(written):
    path = written({"source": "summarize: é", "target": "", "text": "x"}, {"target": "b", "source": "a"})
    rows = jsonl_pairs.rows("train", path=str(path))
    assert [dict(row) for row in rows] == [{"source": "summarize: é", "target": ""}, {"source": "a", "target": "b"}]


def test_ids_are_as_they_stand(written):
    row = {"source_ids": [5, 0, 1], "target_ids": [1]}
    assert jsonl_pairs.rows("train", path=str(written({**row, "labels": [2]})))[0] == row


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"source": "x"}, "neither source and target nor source_ids and target_ids, but source"),
        ({}, "but nothing"),
        ({"source": "x", "target": 3}, "target is a int, not a string"),
        ({"source_ids": [1], "target_ids": [1]}, "'source_ids' and 'target_ids', and those before have 'source' and"),
        (
            {"source": "x", "target": "y", "source_ids": [1], "target_ids": [1]},
            "both source and target and source_ids and target_ids",
        ),
    ],
)
def test_a_bad_row_is_told_with_its_line(written, bad, said):
    path = written({"source": "a", "target": "b"}, bad)
    with pytest.raises(Problem, match=said) as caught:
        jsonl_pairs.rows("train", path=str(path))
    assert caught.value.where == f"{path}:2"


@pytest.mark.parametrize("bad", [[], [1, -1], [True], "1 2"])
def test_ids_are_whole_numbers(written, bad):
    with pytest.raises(Problem, match="target_ids is no list of one or more whole numbers"):
        jsonl_pairs.rows("train", path=str(written({"source_ids": [1], "target_ids": bad})))


def test_the_source_is_the_content_and_there_is_one_split(written):
    one, other = ({"source": "a", "target": target} for target in "bc")
    found = {jsonl_pairs.source(path=str(written(row, name="x.jsonl"))).identity for row in (one, other)}
    assert len(found) == 2
    with pytest.raises(Problem, match="unknown split of jsonl_pairs 'test'"):
        jsonl_pairs.source(["test"], path=str(written(one)))


def test_the_columns_of_the_first_row_are_told_without_reading_the_rest(tmp_path):
    path = tmp_path / "rows.jsonl"
    for text, columns in (('\n \n{"source": 1, "x": 2}\nnonsense', {"source", "x"}), ("[3]", set()), ("", set())):
        path.write_text(text)
        assert _jsonl.columns(str(path)) == columns
