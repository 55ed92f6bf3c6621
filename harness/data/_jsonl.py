"""JSON Lines files of one's own: one object a line, every line checked when the file is opened.

A file is one split, `train`. Its rows are all of one form, columns that stand together: those whose names end in `ids`
hold token ids, the others text. Columns of no form are not read, and lines of white space are no rows.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.data._rows import Rows, check_splits
from harness.problems import Problem
from harness.sources import Source

SPLITS = ("train",)
Form = tuple[str, ...]


def source(name: str, splits: Sequence[str], path: str) -> Source:
    """Returns a file as a source, known by its sha256.

    Args:
        name: The data set's, for the error.
        splits: What is asked of it.
        path: The file.

    Raises:
        Problem: There is no such file, or no such split.
    """
    _check_splits(name, splits)
    found = file(path)
    with found.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Source("folder", found.name, f"sha256:{digest}", found)


def rows(name: str, split: str, path: str, forms: Sequence[Form]) -> Rows:
    """Returns a file's rows, which hold the columns of their form and no other.

    Args:
        name: The data set's, for the error.
        split: train.
        path: The file.
        forms: What a row may be.

    Raises:
        Problem: The file is not there or empty, or a line is no row: which one, and why.
    """
    _check_splits(name, [split])
    found = file(path)
    starts, form = array("q"), None
    at = 0
    with found.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                own = _form(line, forms, where := f"{found}:{number}")
                if form not in (None, own):
                    raise Problem(f"this row has {_said(own)}, and those before have {_said(form)}", where=where)
                form = own
                starts.append(at)
            at += len(line)
    if form is None:
        raise Problem("there is no row in this file", where=str(found))
    return Rows(starts, partial(_row, found, form))


def file(path: str) -> Path:
    """Returns the file at a path; a `Problem` if there is none."""
    found = Path(os.path.expanduser(path)).absolute()
    if not os.path.isfile(found):  # which takes any text, where pathlib raises at one that is too long
        raise Problem(f"there is no file {path!r}", hint="data of your own: jsonl:path=FILE, one JSON object a line")
    return found


def columns(path: str) -> set[str]:
    """Returns the columns of a file's first row; none where that is no row, which is told when the file is read."""
    with file(path).open("rb") as lines:
        try:
            return set(dict(json.loads(next(filter(bytes.strip, lines), b"{}"))))
        except (ValueError, TypeError, RecursionError):
            return set()


def _check_splits(name: str, splits: Sequence[str]) -> None:
    try:
        check_splits(name, splits, SPLITS)
    except Problem as problem:
        hint = f"{problem.hint}; for a search give --search-data wikitext2, or --search-split train"
        raise Problem(problem.what, where=problem.where, hint=hint) from problem


def _row(path: Path, form: Form, start: int) -> dict[str, Any]:
    with path.open("rb") as lines:
        lines.seek(start)
        row = json.loads(lines.readline())
        return {column: row[column] for column in form}


def _form(line: bytes, forms: Sequence[Form], where: str) -> Form:
    """Returns which form a line has, after checking its values."""
    example = "{" + ", ".join(f'"{column}": "..."' for column in forms[0]) + "}"
    try:
        row = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise Problem(f"this line is no JSON: {error}", where=where) from error
    except RecursionError as error:
        raise Problem("this line is nested too deeply", where=where, hint=f"write {example} on each line") from error
    if not isinstance(row, dict):
        raise Problem("this line is no JSON object", where=where, hint=f"write {example} on each line")
    found = [form for form in forms if row.keys() >= set(form)]
    if len(found) != 1:
        names = [" and ".join(form) for form in forms]
        has = f"both {' and '.join(names)}" if found else f"neither {' nor '.join(names)}, but {_list(row)}"
        raise Problem(f"this row has {has}", where=where, hint="a row has one of the two")
    for column in found[0]:
        _check(column, row[column], where)
    return found[0]


def _list(row: dict[str, Any]) -> str:
    return ", ".join(row) or "nothing"


def _said(form: Form) -> str:
    return " and ".join(map(repr, form))


def _check(column: str, value: Any, where: str) -> None:
    if not column.endswith("ids"):
        if not isinstance(value, str):
            raise Problem(f"{column} is a {type(value).__name__}, not a string", where=where)
    elif not (isinstance(value, list) and value and all(type(each) is int and each >= 0 for each in value)):
        raise Problem(f"{column} is no list of one or more whole numbers from 0 on", where=where)
