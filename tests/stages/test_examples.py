from __future__ import annotations

import pytest

from harness import rooms
from harness.data import prose
from harness.data._rows import Rows, head
from harness.models import llama
from harness.stages import _examples
from harness.tasks import _token_file
from harness.tasks import language_modelling as lm


def test_the_first_rows_of_a_split_are_read_lazily(monkeypatch):
    asked = []

    class Spy(list):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    monkeypatch.setattr(_examples.rooms, "bind", lambda kind, text: lambda split: Spy([split, "b", "c"]))
    rows = _examples.rows_for({"data": "prose", "split": "train", "rows": 2})
    assert len(rows) == 2 and not asked
    assert rows[0] == "train" and asked == [0]
    assert len(_examples.rows_for({"data": "prose", "split": "train", "rows": 9})) == 3


@pytest.fixture(scope="module")
def tokenizer():
    return llama.tiny([row["text"] for row in head(prose.rows("train"), 200)], seed=0)[1]


def options(**more):
    section = {"data": "prose", "split": "train", "rows": None, "batch_size": 4}
    return {**section, "task": "language_modelling:length=32,cut=packed", "steps": None, "tokens": None, **more}


@pytest.mark.parametrize(
    ("length", "windows"), [({"steps": 3}, 12), ({"tokens": 3 * 4 * 32}, 12), ({"tokens": 2 * 4 * 32 + 1}, 12)]
)
def test_a_run_of_so_many_tokens_or_steps_packs_no_more_text(tokenizer, tmp_path, monkeypatch, length, windows):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(_token_file, "BATCH", 2000)
    read, section = set(), options(**length)
    rows = _examples.rows_for(section)
    spied = Rows(range(len(rows)), lambda index: read.add(index) or rows[index])
    features, collate = _examples.examples_for(spied, section, tokenizer)
    whole = lm.examples(prose.rows("train"), tokenizer, length=32, cut="packed")
    assert list(features) == [whole[i] for i in range(windows)]
    assert 0 < len(read) < len(prose.rows("train")) / 4
    assert collate([features[0], features[1]])["input_ids"].shape == (2, 32)


def test_epochs_pack_all_rows_once(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    section = options(rows=30)
    features, _ = _examples.examples_for(_examples.rows_for(section), section, tokenizer)
    whole = lm.examples(head(prose.rows("train"), 30), tokenizer, length=32, cut="packed")
    assert list(features) == list(whole)
    again, _ = _examples.examples_for(iter([]), section, tokenizer)
    assert list(again) == list(whole), "a later run reads what the first one kept"
    (folder,) = (tmp_path / "tokens").iterdir()
    assert folder.name.startswith("prose-")


@pytest.mark.parametrize("changed", [{"split": "test"}, {"rows": 29}])
def test_other_rows_are_other_tokens(tokenizer, tmp_path, monkeypatch, changed):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    for section in (options(rows=30), options(rows=30) | changed):
        rows = _examples.rows_for(section)
        features, _ = _examples.examples_for(rows, section, tokenizer)
        assert list(features) == list(rooms.bind("task", section["task"], "examples")(rows, tokenizer))
    assert len(list((tmp_path / "tokens").iterdir())) == 2
