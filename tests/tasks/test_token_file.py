from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import numpy
import pytest

from harness.problems import Problem
from harness.tasks import _token_file as module
from harness.tasks._token_file import tokens

WIDE, NARROW = numpy.dtype(numpy.uint32), numpy.dtype(numpy.uint16)
TEXTS = [" ".join(str((7 * i + j) % 100) for j in range(i % 9)) for i in range(200)]
WHOLE = [int(word) for text in TEXTS for word in text.split()]


def encode(texts):
    return [[int(word) for word in text.split()] for text in texts]


class Corpus:
    """Documents that note how many of them were read."""

    def __init__(self, texts=TEXTS):
        self.texts, self.read = texts, 0

    def __iter__(self):
        for text in self.texts:
            self.read += 1
            yield text


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Batches of a few documents, and a record after every few batches."""
    monkeypatch.setattr(module, "BATCH", 60)
    monkeypatch.setattr(module, "PART", 50)


@pytest.mark.parametrize("dtype", [WIDE, NARROW])
def test_all_documents_one_after_another(tmp_path, dtype):
    corpus = Corpus()
    found = tokens(tmp_path / "new" / "file", corpus, encode, dtype)
    assert found.tolist() == WHOLE and found.dtype == dtype and corpus.read == len(TEXTS)
    assert (tmp_path / "new" / "file" / "tokens").stat().st_size == len(WHOLE) * dtype.itemsize


def test_what_is_there_is_not_made_again(tmp_path):
    tokens(tmp_path, TEXTS, encode, NARROW)
    corpus = Corpus()
    assert tokens(tmp_path, corpus, encode, NARROW).tolist() == WHOLE
    assert tokens(tmp_path, corpus, encode, NARROW, 10**9).tolist() == WHOLE
    assert tokens(tmp_path, corpus, encode, NARROW, 7).tolist() == WHOLE[:7]
    assert corpus.read == 0


def test_no_more_documents_are_read_than_are_needed(tmp_path):
    corpus = Corpus()
    assert tokens(tmp_path, corpus, encode, NARROW, 100).tolist() == WHOLE[:100]
    assert corpus.read < 60
    first = corpus.read
    assert tokens(tmp_path, corpus, encode, NARROW, 300).tolist() == WHOLE[:300]
    assert first < corpus.read - first < len(TEXTS), "it goes past what is written, and no further than is needed"


def test_a_larger_need_goes_on_where_a_smaller_one_ended(tmp_path):
    seen = []

    def spy(texts):
        seen.extend(texts)
        return encode(texts)

    for enough in (40, 41, 200, None):
        tokens(tmp_path, TEXTS, spy, NARROW, enough)
    assert seen == TEXTS


def test_an_error_midway_loses_no_part(tmp_path):
    def fails(texts):
        if TEXTS[120] in texts:
            raise ValueError("broken document")
        return encode(texts)

    with pytest.raises(ValueError, match="broken document"):
        tokens(tmp_path, TEXTS, fails, NARROW)
    done = json.loads((tmp_path / "written.json").read_text())
    assert done["documents"] > 90 and not done["whole"]
    assert tokens(tmp_path, TEXTS, encode, NARROW).tolist() == WHOLE


def _slow(texts):
    time.sleep(0.02)
    return encode(texts)


def _fill(folder):
    module.BATCH, module.PART = 60, 50
    tokens(folder, TEXTS, _slow, NARROW)


def _begun(folder):
    """Waits until a part of a file is recorded."""
    end = time.monotonic() + 60
    while not (folder / "written.json").is_file():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_after_a_kill_it_goes_on(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_fill, args=(tmp_path,))
    process.start()
    _begun(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = json.loads((tmp_path / "written.json").read_text())
    assert 0 < done["documents"] < len(TEXTS)
    with (tmp_path / "tokens").open("ab") as file:  # what a kill leaves beyond the record, half a token at its end
        file.write(b"\xff" * 5)
    seen = []
    found = tokens(tmp_path, TEXTS, lambda texts: seen.extend(texts) or encode(texts), NARROW)
    assert found.tolist() == WHOLE and len(seen) == len(TEXTS) - done["documents"]


def test_of_two_processes_one_writes(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_fill, args=(tmp_path,))
    process.start()
    _begun(tmp_path)
    seen = []
    found = tokens(tmp_path, TEXTS, lambda texts: seen.extend(texts) or encode(texts), NARROW)
    process.join()
    assert process.exitcode == 0 and found.tolist() == WHOLE and not seen


@pytest.mark.parametrize("damage", ["short", "gone", "record"])
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    tokens(tmp_path, TEXTS, encode, NARROW)
    if damage == "short":
        os.truncate(tmp_path / "tokens", 10)
    elif damage == "gone":
        (tmp_path / "tokens").unlink()
    else:
        (tmp_path / "written.json").write_text("{")
    assert tokens(tmp_path, TEXTS, encode, NARROW).tolist() == WHOLE


def test_an_id_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(OverflowError):
        tokens(tmp_path, ["65536"], encode, NARROW)


def test_no_document_is_no_token(tmp_path):
    assert tokens(tmp_path, [], encode, NARROW).tolist() == []


def test_a_disk_too_small_is_told_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(module.disk, "free", lambda folder: 2**30)
    corpus = Corpus()
    with pytest.raises(Problem, match=r"45,000,000,000 tokens need 83.8 GiB more on this disk, which has 1.0 free"):
        tokens(tmp_path, corpus, encode, NARROW, 45 * 10**9)
    assert corpus.read == 0


def test_a_full_disk_is_told_and_gone_on_from(tmp_path, monkeypatch):
    def full(texts):
        if TEXTS[120] in texts:
            raise OSError(28, "No space left on device")
        return encode(texts)

    with pytest.raises(Problem, match="tokens cannot be written: No space left on device"):
        tokens(tmp_path, TEXTS, full, NARROW)
    assert tokens(tmp_path, TEXTS, encode, NARROW).tolist() == WHOLE
