from __future__ import annotations

import hashlib
import json

import pytest

from harness import rooms
from harness.data import jsonl
from harness.problems import Problem


@pytest.fixture
def written(tmp_path):
    """Writes lines, given as text or as objects, and returns the file."""

    def write(*lines, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf8")
        return path

    return write


def test_rows_come_in_order_and_hold_only_their_column(written):
    path = written({"text": "één\nzwei", "url": "x"}, "  ", {"text": ""}, {"text": "drei \u2028 vier"})
    rows = jsonl.rows("train", path=str(path))
    assert [dict(row) for row in rows] == [{"text": "één\nzwei"}, {"text": ""}, {"text": "drei \u2028 vier"}]
    assert len(rows) == 3 and rows[-1] == rows[2]


def test_ids_are_as_they_stand(written):
    rows = jsonl.rows("train", path=str(written({"input_ids": [5, 0, 7]}, {"input_ids": [1]})))
    assert [row["input_ids"] for row in rows] == [[5, 0, 7], [1]]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("{'text': 1}", "no JSON"),
        ('["text"]', "no JSON object"),
        ('{"text": ' + "[" * 100_000, "nested too deeply"),
        ({"txt": "x"}, "neither text nor input_ids, but txt"),
        ({"text": "x", "input_ids": [1]}, "both text and input_ids"),
        ({"text": 3}, "text is a int, not a string"),
        ({"input_ids": []}, "no list of one or more whole numbers"),
        ({"input_ids": [1, -1]}, "no list of one or more whole numbers"),
        ({"input_ids": [1, True]}, "no list of one or more whole numbers"),
        ({"input_ids": [1.0]}, "no list of one or more whole numbers"),
        ({"input_ids": [1]}, "has 'input_ids', and those before have 'text'"),
    ],
)
def test_a_bad_row_is_told_with_its_line_when_the_file_is_opened(written, bad, said):
    path = written({"text": "good"}, "", bad)
    with pytest.raises(Problem, match=said) as caught:
        jsonl.rows("train", path=str(path))
    assert caught.value.where == f"{path}:3"


def test_bytes_that_are_no_utf8_are_told_with_their_line(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"text": "good"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(Problem, match="no JSON") as caught:
        jsonl.rows("train", path=str(path))
    assert caught.value.where == f"{path}:2"


def test_an_absent_or_empty_file_is_a_problem(written, tmp_path):
    for read in (lambda path: jsonl.rows("train", path=path), lambda path: jsonl.source(path=path)):
        with pytest.raises(Problem, match="there is no file"):
            read(str(tmp_path / "absent.jsonl"))
    with pytest.raises(Problem, match="no row in this file"):
        jsonl.rows("train", path=str(written("")))


def test_a_search_that_wants_another_split_is_told_what_to_give(written):
    for ask in (jsonl.source, lambda splits, path: jsonl.rows(*splits, path=path)):
        with pytest.raises(Problem, match="unknown split of jsonl 'validation'") as caught:
            ask(("validation",), path=str(written({"text": "a"})))
        assert "--search-data" in caught.value.hint and "--search-split train" in caught.value.hint


def test_there_is_one_split(written):
    path = str(written({"text": "x"}))
    for call in (lambda: jsonl.rows("test", path=path), lambda: jsonl.source(["test"], path=path)):
        with pytest.raises(Problem, match="there is: train"):
            call()


def test_the_source_is_the_content(written):
    one, other = written({"text": "x"}, name="a.jsonl"), written({"text": "y"}, name="b.jsonl")
    digest = hashlib.sha256(one.read_bytes()).hexdigest()
    assert jsonl.source(path=str(one)).identity == f"folder:a.jsonl@sha256:{digest}"
    assert jsonl.source(path=str(other)).revision != f"sha256:{digest}"


def test_a_path_may_hold_colons_and_equals_signs_but_no_comma(written):
    path = written({"text": "x"}, name="a b:c=d.jsonl")
    choice = rooms.resolve("data", f"jsonl:path={path}")
    assert rooms.resolve("data", str(choice)) == choice
    assert rooms.bind("data", choice)("train")[0] == {"text": "x"}
    with pytest.raises(Problem, match=r"cannot read 'b\.jsonl'"):
        rooms.resolve("data", "jsonl:path=a,b.jsonl")
    with pytest.raises(Problem, match="needs the option 'path'"):
        rooms.resolve("data", "jsonl")


@pytest.mark.parametrize("path", ["a" * 5000, "a\0b", "~nobody-here/rows"])
def test_what_cannot_be_a_path_is_no_file(path):
    with pytest.raises(Problem, match="there is no file"):
        jsonl.rows("train", path=path)
