"""A file of your own: one JSON object a line, with `text`, or with `input_ids` that are used exactly as they stand.

    {"text": "Once upon a time ..."}          tokenised, cut or joined as the task does with any text
    {"input_ids": [1, 403, 407, 261]}         one example, not cut, no special token added

All rows are of one kind; other columns are not read, and lines of white space are no rows. Every line is checked when
the file is opened, so that a bad one is told with its number before anything is computed.

The path is an option's value (`jsonl:path=calibration/c4.jsonl`): it may hold colons, equals signs and spaces, but no
comma, which ends a value. A file is one split, `train`.
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

KIND = "text"
SPLITS = ("train",)
COLUMNS = ("text", "input_ids")


def source(splits: Sequence[str] = (), *, path: str) -> Source:
    """The file, known by its sha256; raises a `Problem` when it is not there."""
    _check_splits(splits)
    file = _file(path)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Source("folder", file.name, f"sha256:{digest}", file)


def rows(split: str, *, path: str) -> Rows:
    """Rows of a JSON Lines file: `text`, or `input_ids` used as they are.

    Args:
        split: train.
        path: The file; without a comma.

    Raises:
        Problem: The file is not there or empty, or a line is no row: which one, and why.
    """
    _check_splits([split])
    file = _file(path)
    starts, column = array("q"), None
    at = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                found = _column(line, where := f"{file}:{number}")
                if column not in (None, found):
                    raise Problem(f"this row has {found!r}, and those before have {column!r}", where=where)
                column = found
                starts.append(at)
            at += len(line)
    if column is None:
        raise Problem("there is no row in this file", where=str(file))
    return Rows(starts, partial(_row, file, column))


def _check_splits(splits: Sequence[str]) -> None:
    try:
        check_splits("jsonl", splits, SPLITS)
    except Problem as problem:
        hint = f"{problem.hint}; for a search give --search-data wikitext2, or --search-split train"
        raise Problem(problem.what, where=problem.where, hint=hint) from problem


def _row(file: Path, column: str, start: int) -> dict[str, Any]:
    with file.open("rb") as lines:
        lines.seek(start)
        return {column: json.loads(lines.readline())[column]}


def _file(path: str) -> Path:
    file = Path(os.path.expanduser(path)).absolute()
    if not os.path.isfile(file):  # which takes any text, where pathlib raises at one that is too long
        raise Problem(f"there is no file {path!r}", hint="data of your own: jsonl:path=FILE, one JSON object a line")
    return file


def _column(line: bytes, where: str) -> str:
    """Returns which of the columns a line has, after checking its value."""
    try:
        row = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise Problem(f"this line is no JSON: {error}", where=where) from error
    except RecursionError as error:
        hint = 'write {"text": "..."} on each line'
        raise Problem("this line is nested too deeply", where=where, hint=hint) from error
    if not isinstance(row, dict):
        raise Problem("this line is no JSON object", where=where, hint='write {"text": "..."} on each line')
    found = [column for column in COLUMNS if column in row]
    if len(found) != 1:
        has = "both text and input_ids" if found else f"neither text nor input_ids, but {', '.join(row) or 'nothing'}"
        raise Problem(f"this row has {has}", where=where, hint="a row has one of the two")
    value = row[found[0]]
    if found == ["text"] and not isinstance(value, str):
        raise Problem(f"text is a {type(value).__name__}, not a string", where=where)
    if found == ["input_ids"] and not _is_ids(value):
        raise Problem("input_ids is no list of one or more whole numbers from 0 on", where=where)
    return found[0]


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int and each >= 0 for each in value)
