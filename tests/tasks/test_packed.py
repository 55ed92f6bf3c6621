from __future__ import annotations

import copy
import subprocess
import sys

import pytest

from harness import remembered
from harness.problems import Problem
from harness.tasks import _token_file
from harness.tasks import language_modelling as lm
from harness.tasks._packed import Packed

IDENTITY = ["generated:words@1", "words", "train", None]


@pytest.fixture
def rows(texts):
    return [{"text": text} for text in texts]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def without_bos(tokenizer):
    plain = copy.deepcopy(tokenizer)
    plain.backend_tokenizer.post_processor = None
    return plain


def ids(windows):
    return [token for window in windows for token in window["input_ids"]]


def test_documents_stand_as_the_tokenizer_marks_them(llama, rows):
    packed = lm.examples(rows, llama[1], length=8, cut="packed")
    expected = [token for row in rows for token in llama[1](row["text"]).input_ids]
    assert expected.count(llama[1].bos_token_id) == len(rows)
    assert ids(packed) == expected[: len(expected) // 8 * 8] and len(packed) == len(expected) // 8


def test_an_end_token_follows_where_the_tokenizer_marks_nothing(llama, rows):
    tokenizer = without_bos(llama[1])
    expected = [t for row in rows for t in [*tokenizer(row["text"]).input_ids, tokenizer.eos_token_id]]
    assert ids(Packed(rows, tokenizer, 4)) == expected[: len(expected) // 4 * 4]


def test_truncation_and_padding_of_an_earlier_call_do_not_count(llama, rows):
    tokenizer = copy.deepcopy(llama[1])
    tokenizer([row["text"] for row in rows], padding=True, truncation=True, max_length=3)
    assert ids(Packed(rows, tokenizer, 4)) == ids(Packed(rows, llama[1], 4))
    again = Packed(rows, tokenizer, 4).kept("words", IDENTITY)
    assert ids(again) == ids(Packed(rows, llama[1], 4).kept("words", IDENTITY))
    assert len(list((remembered.folder() / "tokens").iterdir())) == 1


def test_one_document_has_the_windows_of_joined_text(llama, texts):
    rows = [{"text": "\n\n".join(texts)}]
    assert list(lm.examples(rows, llama[1], length=16, cut="packed")) == list(lm.examples(rows, llama[1], length=16))


def test_a_run_reads_as_many_documents_as_its_windows_need(llama, rows, monkeypatch):
    monkeypatch.setattr(_token_file, "BATCH", 100)
    read = []
    noting = (read.append(row) or row for row in rows)
    found = Packed(noting, llama[1], 8).kept("words", IDENTITY, 5)
    assert len(found) == 5 and list(found) == list(Packed(rows, llama[1], 8))[:5]
    assert 0 < len(read) < len(rows) / 2


def test_a_later_run_tokenises_nothing_and_sees_the_same(llama, rows):
    first = list(Packed(rows, llama[1], 8).kept("words", IDENTITY))
    assert list(Packed(iter([]), llama[1], 8).kept("words", IDENTITY)) == first
    assert list(Packed(iter([]), llama[1], 8).kept("words", IDENTITY, 3)) == first[:3]
    assert ids(Packed(iter([]), llama[1], 4).kept("words", IDENTITY))[: len(ids(first))] == ids(first)


def test_other_data_or_another_tokenizer_are_another_file(llama, mpt, rows):
    for tokenizer, identity in [
        (llama[1], IDENTITY),
        (mpt[1], IDENTITY),
        (without_bos(llama[1]), IDENTITY),
        (llama[1], [*IDENTITY[:3], 5]),
    ]:
        assert ids(Packed(rows, tokenizer, 2).kept("words", identity)) == ids(Packed(rows, tokenizer, 2))
    assert len(list((remembered.folder() / "tokens").glob("words-*"))) == 4


def test_what_cannot_be_packed_is_a_problem(llama, rows):
    with pytest.raises(Problem, match="fewer than one window of 4096"):
        len(Packed(rows, llama[1], 4096))
    endless = without_bos(llama[1])
    endless.eos_token = None
    with pytest.raises(Problem, match="no token that ends a document"):
        len(Packed(rows, endless, 8))
    with pytest.raises(Problem, match="and this is none"):
        len(Packed(rows, object(), 8))


MEASURE = """
import sys, torch
from harness.memory import peak, reset_peak
from harness.models import llama
from harness.tasks import _token_file
from harness.tasks import language_modelling as lm

words = "the old cat sleeps under a young tree and seven dogs run by it".split()
_, tokenizer = llama.tiny([" ".join(words)], seed=0)
_token_file.BATCH = 2**16

def windows(documents):
    rows = ({"text": " ".join(words[(i * j + j * j) % len(words)] for j in range(200))} for i in range(documents))
    return len(lm.examples(Rows(rows), tokenizer, length=64, cut=sys.argv[1]))

class Rows:
    def __init__(self, rows): self.rows = rows
    def __iter__(self): return self.rows

windows(300)
device = torch.device("cpu")
reset_peak(device)
before = peak(device)
tokens = 64 * windows(4000)
print(tokens, peak(device) - before)
"""


def measured(cut):
    done = subprocess.run([sys.executable, "-c", MEASURE, cut], capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


def test_memory_does_not_grow_with_the_text():
    tokens, bytes_more = measured("packed")
    assert tokens > 700_000
    assert bytes_more < 10 * tokens, f"{bytes_more / tokens:.1f} bytes a token"
