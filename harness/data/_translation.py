"""A hub row with one text per language -> source and target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def pair(row: Mapping[str, Any], *, direction: str, column: str | None = None) -> dict[str, str]:
    """Returns source and target of `direction` (`en-de`); the languages lie in the row or in its `column`."""
    texts = row[column] if column else row
    source, target = direction.split("-")
    return {"source": texts[source], "target": texts[target]}
