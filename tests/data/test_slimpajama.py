from __future__ import annotations

import pytest

from harness.data import slimpajama
from harness.problems import Problem


@pytest.fixture
def folder(tmp_path, monkeypatch):
    chunk = tmp_path / "datasets/cerebras/SlimPajama-627B/train/chunk1"
    chunk.mkdir(parents=True)
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    for number in range(3):
        lines = (f'{{"text": "{number}.{row}", "meta": {{}}}}\n' for row in range(2))
        (chunk / f"example_train_{number}.jsonl").write_text("".join(lines))
    return chunk


EVERY = [{"text": f"{file}.{row}"} for file in range(3) for row in range(2)]


def test_rows_in_order_and_by_number_are_the_same(folder):
    rows = slimpajama.rows("train", files="chunk1/*.jsonl")
    assert list(rows) == EVERY == [rows[i] for i in range(len(rows))]
    assert list(slimpajama.rows("train", files="chunk1/example_train_[02].jsonl")) == EVERY[:2] + EVERY[4:]


def test_files_are_read_no_further_than_is_asked_for(folder):
    (folder / "example_train_1.jsonl").write_text("no JSON")
    rows = slimpajama.rows("train", files="chunk1/*.jsonl")
    begun = iter(rows)
    assert [next(begun), next(begun)] == EVERY[:2]
    with pytest.raises(Problem, match="'train', cannot be read"):
        next(begun)


def test_a_pattern_of_no_file_is_a_problem(folder):
    with pytest.raises(Problem, match="cannot be read"):
        list(slimpajama.rows("train", files="chunk2/*.jsonl"))
