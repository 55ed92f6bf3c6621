"""A hub row of text -> the one column that text data sets share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def text_row(row: Mapping[str, Any]) -> dict[str, str]:
    """Keeps the column `text`."""
    return {"text": row["text"]}
