"""A file of your own: one JSON object a line, with `text`, or with `input_ids` that are used exactly as they stand.

    {"text": "Once upon a time ..."}          tokenised, cut or joined as the task does with any text
    {"input_ids": [1, 403, 407, 261]}         one example, not cut, no special token added

All rows are of one kind; other columns are not read, and lines of white space are no rows. Every line is checked when
the file is opened, so that a bad one is told with its number before anything is computed.

The path is an option's value (`jsonl:path=calibration/c4.jsonl`): it may hold colons, equals signs and spaces, but no
comma, which ends a value. A file is one split, `train`. What an encoder reads and a decoder writes: `jsonl_pairs`.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.data import _jsonl
from harness.data._rows import Rows
from harness.sources import Source

KIND = "text"
SPLITS = ("train",)
FORMS = (("text",), ("input_ids",))


def source(splits: Sequence[str] = (), *, path: str) -> Source:
    """The file, known by its sha256; raises a `Problem` when it is not there."""
    return _jsonl.source("jsonl", splits, path)


def rows(split: str, *, path: str) -> Rows:
    """Rows of a JSON Lines file: `text`, or `input_ids` used as they are.

    Args:
        split: train.
        path: The file; without a comma.

    Raises:
        Problem: The file is not there or empty, or a line is no row: which one, and why.
    """
    return _jsonl.rows("jsonl", split, path, FORMS)
