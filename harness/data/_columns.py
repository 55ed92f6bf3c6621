"""A hub row -> the columns that data sets of one kind share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def keep(row: Mapping[str, Any], *, columns: Sequence[str]) -> dict[str, str]:
    """Returns the row's `columns` alone."""
    return {column: row[column] for column in columns}


def pair(row: Mapping[str, Any], *, direction: str, column: str | None = None) -> dict[str, str]:
    """Returns source and target of `direction` (`en-de`); the languages lie in the row or in its `column`."""
    texts = row[column] if column else row
    source, target = direction.split("-")
    return {"source": texts[source], "target": texts[target]}


def instruction(row: Mapping[str, Any], *, asks: Sequence[str], answers: str) -> dict[str, str]:
    """Returns what is asked, the columns that are not empty with a blank line between them, and the response."""
    return {"instruction": "\n\n".join(row[column] for column in asks if row[column]), "response": row[answers]}


def chat(row: Mapping[str, Any], *, column: str) -> dict[str, str]:
    """Returns a conversation as text: before each turn a line with its role, `<|user|>` and `<|assistant|>`."""
    return {"text": "\n".join(f"<|{turn['role']}|>\n{turn['content']}" for turn in row[column])}
