from __future__ import annotations

import pickle
from functools import partial

import pytest

from harness.data._rows import Row, Rows, check_splits, cover_first, first, share, split_of
from harness.problems import Problem


def double(number: int) -> dict[str, int]:
    return {"value": 2 * number}


def test_rows_compute_an_item_when_it_is_read():
    read = []
    rows = Rows([1, 2, 3], lambda item: read.append(item) or {"value": item})
    assert len(rows) == 3 and not read
    assert rows[-1] == {"value": 3} and read == [3]
    assert [row["value"] for row in rows] == [1, 2, 3]
    with pytest.raises(IndexError, match="row 3 of 3"):
        rows[3]


def test_rows_cross_a_process():
    assert list(pickle.loads(pickle.dumps(Rows([1, 2], double)))) == [{"value": 2}, {"value": 4}]


def test_row_computes_a_column_when_it_is_read():
    read = []
    row = Row(text="hello", audio=partial(read.append, "audio"))
    assert row["text"] == "hello" and list(row) == ["text", "audio"] and not read
    row["audio"]
    assert read == ["audio"]
    with pytest.raises(KeyError):
        row["other"]


def test_share_is_fixed_and_even():
    assert share("a") == pytest.approx(0xCA978112CA1B / 2**48)  # sha256("a") begins with ca978112ca1b
    splits = [split_of(str(number)) for number in range(4000)]
    assert splits.count("train") == pytest.approx(3200, abs=100)
    assert splits.count("test") == pytest.approx(400, abs=80)


def test_cover_first_moves_new_words_to_the_front():
    items, least = cover_first(["a b", "b a", "a", "c a", "b c"], lambda text: set(text.split()))
    assert items == ["a b", "c a", "b a", "a", "b c"]
    assert least == 2


def test_size_and_split_are_checked():
    assert first("pairs", [1, 2, 3], 2) == [1, 2]
    for size in (0, 4):
        with pytest.raises(Problem, match="between 1 and 3"):
            first("pairs", [1, 2, 3], size)
    with pytest.raises(Problem) as caught:
        check_splits("pairs", ["train", "tests"], ("train", "test"))
    assert "test, train" in str(caught.value) and "did you mean 'test'" in str(caught.value)
