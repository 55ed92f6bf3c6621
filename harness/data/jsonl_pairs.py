"""A file of your own for an encoder-decoder: what it reads and what it writes, one JSON object a line.

    {"source": "summarize: A long ...", "target": "Short."}     tokenised and cut as the task does; no prefix is added
    {"source_ids": [21603, 10, 1], "target_ids": [7110, 1]}     used exactly as they stand, end tokens among them

As in `jsonl`, all rows are of one kind, other columns are not read, every line is checked when the file is opened, and
a file is one split, `train`. On the command line a file of such rows is known by its first one.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.data import _jsonl
from harness.data._rows import Rows
from harness.sources import Source

KIND = "pair"
SPLITS = ("train",)
FORMS = (("source", "target"), ("source_ids", "target_ids"))


def source(splits: Sequence[str] = (), *, path: str) -> Source:
    """The file, known by its sha256; raises a `Problem` when it is not there."""
    return _jsonl.source("jsonl_pairs", splits, path)


def rows(split: str, *, path: str) -> Rows:
    """Rows of a JSON Lines file for an encoder-decoder: `source` and `target`, or `source_ids` and `target_ids`.

    Args:
        split: train.
        path: The file; without a comma.

    Raises:
        Problem: The file is not there or empty, or a line is no row: which one, and why.
    """
    return _jsonl.rows("jsonl_pairs", split, path, FORMS)
