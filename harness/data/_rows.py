"""Lazy rows, and which split a generated item belongs to."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, TypeVar

from harness.problems import Problem, unknown

T = TypeVar("T")


class Row(Mapping[str, Any]):
    """One row; a column that is given as a function is computed whenever it is read."""

    def __init__(self, **columns: Any):
        self._columns = columns

    def __getitem__(self, name: str) -> Any:
        value = self._columns[name]
        return value() if callable(value) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class Rows(Sequence[Mapping[str, Any]]):
    """A sequence seen through a function, which is called for an item when that item is read."""

    def __init__(self, items: Sequence[Any], row: Callable[[Any], Mapping[str, Any]]):
        self._items, self._row = items, row

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self._row(self._items[int(index)])

    def __len__(self) -> int:
        return len(self._items)


class _Head(Sequence[Mapping[str, Any]]):
    """The first of some rows, which are counted only when somebody asks how many: to count may be to fetch them all."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], count: int):
        self._rows, self._count = rows, count

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return itertools.islice(iter(self._rows), self._count)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self._rows[range(len(self))[index]]

    def __len__(self) -> int:
        return min(self._count, len(self._rows))


def head(rows: Sequence[Mapping[str, Any]], count: int | None) -> Sequence[Mapping[str, Any]]:
    """Returns the first `count` rows, or all for None, still lazily."""
    return rows if count is None else _Head(rows, count)


def share(text: str) -> float:
    """Returns a number in [0, 1) that is fixed by the text: its sha256 as a binary fraction."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def split_of(text: str) -> str:
    """Returns the split of a generated item: 80% train, 10% validation, 10% test, by hash."""
    place = share(text)
    return "train" if place < 0.8 else "validation" if place < 0.9 else "test"


def check_splits(name: str, splits: Sequence[str], known: Sequence[str]) -> None:
    """Raises a `Problem` for a split that the data set does not have."""
    for split in splits:
        if split not in known:
            raise unknown(f"split of {name}", split, known)


def first(name: str, items: Sequence[Any], size: int, least: int = 1) -> Sequence[Any]:
    """Returns the first `size` training items of a generated data set; a `Problem` if there are not so many."""
    if not least <= size <= len(items):
        raise Problem(f"{name}: size={size} should lie between {least} and {len(items)}")
    return items[:size]


def cover_first(items: Iterable[T], words: Callable[[T], Set[str]]) -> tuple[list[T], int]:
    """Puts first the items that bring a new word, so that any long enough beginning holds every word.

    Returns:
        The items in their new order, and how many of them bring a new word.
    """
    seen: set[str] = set()
    cover: list[T] = []
    rest: list[T] = []
    for item in items:
        (rest if words(item) <= seen else cover).append(item)
        seen |= words(item)
    return cover + rest, len(cover)
