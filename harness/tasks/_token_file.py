"""Token ids in a file: appended to document by document, read memory-mapped, used by every run that wants the same.

    tokens          the ids one after another, uint16 or uint32 in the machine's byte order
    written.json    how many documents and tokens of it count, and whether these are all: replaced after every part
    lock            held by the one process that appends

A run that needs more than there is goes on where the file ends: after a smaller run, and after one that was killed,
whose ids beyond the last `written.json` are cut off. What counts is never changed, so that others may read meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy

from harness.problems import Problem
from harness.runs import disk, files

PART = 2**24
"""Tokens between two records of what is written: about two minutes of one core's tokenizer."""
BATCH = 2**20
"""Characters that are tokenised at once, the last document's beyond them included."""
IDS, RECORD, LOCK = "tokens", "written.json", "lock"

Encode = Callable[[list[str]], Iterable[Sequence[int]]]
"""From documents to the token ids of each."""


@dataclass(frozen=True)
class Written:
    """How much of the documents a file holds; `whole` says that there are no more of them."""

    documents: int = 0
    tokens: int = 0
    whole: bool = False

    def holds(self, enough: int | None) -> bool:
        """Returns whether a run that needs so many tokens, or all of them, can begin."""
        return self.whole or (enough is not None and self.tokens >= enough)


def tokens(
    folder: Path, texts: Iterable[str], encode: Encode, dtype: numpy.dtype, enough: int | None = None
) -> numpy.ndarray:
    """Returns the tokens of documents, from the folder's file; those that it lacks are appended to it first.

    Args:
        folder: The file's, of these documents and this tokenizer alone.
        texts: The documents, always in the same order; iterated no further than is needed.
        encode: The tokenizer.
        dtype: What the file holds them as: uint16 or uint32.
        enough: How many are needed; None for those of all documents.

    Returns:
        Ids [tokens], read-only, mapped: the first `enough`, or all where there are fewer.

    Raises:
        Problem: The folder cannot be written, or its disk is full; what was written stays, to go on from.
    """
    written = _written(folder, dtype)
    if not written.holds(enough):
        try:
            with _alone(folder):
                written = _append(folder, texts, encode, dtype, enough)
        except OSError as error:
            of_documents = error.filename is not None and not str(error.filename).startswith(str(folder))
            if of_documents or error.errno not in disk.REFUSED:
                raise
            hint = "free some space, or set HARNESS_CACHE to another place; it goes on from what is written"
            raise Problem(f"tokens cannot be written: {error.strerror}", where=str(folder), hint=hint) from error
    count = written.tokens if enough is None else min(enough, written.tokens)
    return numpy.memmap(folder / IDS, dtype, "r", shape=(count,)) if count else numpy.empty(0, dtype)


def _written(folder: Path, dtype: numpy.dtype) -> Written:
    """Returns what a file holds; nothing where there is none, its record is damaged, or there is less than it says."""
    try:
        written = Written(**json.loads((folder / RECORD).read_text(encoding="utf8")))
        there = (folder / IDS).stat().st_size
    except (FileNotFoundError, ValueError, TypeError):
        return Written()
    return written if there >= written.tokens * dtype.itemsize else Written()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process appends to a folder's file, and keeps others waiting meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _append(folder: Path, texts: Iterable[str], encode: Encode, dtype: numpy.dtype, enough: int | None) -> Written:
    """Appends until there are enough tokens, after looking at what another process has appended by now."""
    written = recorded = _written(folder, dtype)
    if written.holds(enough):
        return written
    _check_room(folder, written, dtype, enough)
    with (folder / IDS).open("ab") as file:
        file.truncate(written.tokens * dtype.itemsize)
        try:
            for batch in _batches(itertools.islice(texts, written.documents, None)):
                parts = [numpy.asarray(ids, dtype) for ids in encode(batch)]
                for part in parts:
                    file.write(part)
                documents, count = written.documents + len(batch), written.tokens + sum(map(len, parts))
                written = Written(documents, count)
                if written.holds(enough):
                    break
                if written.tokens - recorded.tokens >= PART:
                    recorded = _record(folder, file.fileno(), file.flush, written)
            else:
                written = replace(written, whole=True)
        finally:
            _record(folder, file.fileno(), file.flush, written)
    return written


def _record(folder: Path, handle: int, flush: Callable[[], None], written: Written) -> Written:
    """Brings the tokens to the disk, and then says that they count."""
    flush()
    os.fsync(handle)
    files.replace(folder / RECORD, json.dumps(asdict(written)) + "\n")
    return written


def _check_room(folder: Path, written: Written, dtype: numpy.dtype, enough: int | None) -> None:
    """Refuses to begin what the disk cannot hold.

    Raises:
        Problem: Its free space is less than the tokens that are missing take.
    """
    needs = ((enough or 0) - written.tokens) * dtype.itemsize
    if needs > (there := disk.free(folder)):
        said = f"{enough:,} tokens need {needs / 2**30:,.1f} GiB more on this disk, which has {there / 2**30:,.1f} free"
        raise Problem(said, where=str(folder), hint="free some space, or set HARNESS_CACHE to a place that has it")


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
