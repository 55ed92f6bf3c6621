"""SlimPajama: 627 billion tokens of deduplicated text and code, of Sparse Llama's pretraining too (Cerebras 2023).

The training split lies in ten chunks of thousands of files; one file is read by default, because 600 GB are rarely
wanted. `files` says which. All of a chunk is about 63 billion tokens: a run of 100 billion needs two
(`files=chunk[12]/*.jsonl.zst`), or sees its text 1.6 times.

Rows that are gone through in order, as packing does, are read file by file, no further than is asked for; only counting
them, or asking for one by its number, prepares all files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial

from harness.data._columns import keep
from harness.data._hub import find, read
from harness.data._rows import Rows, check_splits
from harness.problems import Problem
from harness.sources import Source

KIND = "text"
SPLITS = ("train",)
NAME = "cerebras/SlimPajama-627B"


def source(
    splits: Sequence[str] = (), *, files: str = "chunk1/example_train_0.jsonl.zst", revision: str = "main"
) -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, revision=revision, alone=True)


def rows(split: str, *, files: str = "chunk1/example_train_0.jsonl.zst", revision: str = "main") -> Sequence:
    """Web text, books and code, deduplicated (cerebras/SlimPajama-627B).

    Args:
        split: train.
        files: Which files below train/, as a pattern: chunk1/example_train_1*.jsonl.zst; all of a chunk is about 63
            billion tokens.
        revision: The hub's branch or commit.
    """
    check_splits(NAME, [split], SPLITS)
    return _Files(source([split], revision=revision), split, f"train/{files}")


class _Files(Sequence[dict[str, str]]):
    """The rows of some files."""

    def __init__(self, found: Source, split: str, files: str):
        self._source, self._split, self._files = found, split, {split: files}

    def __iter__(self) -> Iterator[dict[str, str]]:
        import datasets

        place, local = self._source.path, self._source.path is not None
        try:
            streamed = datasets.load_dataset(
                str(place) if local else NAME,
                data_files=self._files,
                split=self._split,
                revision=None if local else self._source.revision,
                streaming=True,
            )
            for row in streamed:
                yield keep(row, columns=("text",))
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            where = str(place) if local else f"hub, revision {self._source.revision}"
            raise Problem(f"data set {NAME!r}, split {self._split!r}, cannot be read: {said}", where=where) from error

    def __len__(self) -> int:
        return len(self._whole)

    def __getitem__(self, index: int) -> dict[str, str]:
        return self._whole[index]

    @cached_property
    def _whole(self) -> Rows:
        return Rows(read(self._source, self._split, files=self._files), partial(keep, columns=("text",)))
