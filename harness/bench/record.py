"""The record of a benchmark: what was timed, when and where, as JSON, and its table in Markdown beside it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.tracking.environment import environment


def record(benchmark: str, **said: Any) -> dict[str, Any]:
    """Returns what is kept of a benchmark, ready for JSON."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"benchmark": benchmark, "date": date, **said, "environment": environment()}


def write(said: Mapping[str, Any], table: str, path: Path) -> list[Path]:
    """Writes a record and, beside it, its table; returns both files."""
    from harness.runs import files

    shown = path.with_suffix(".md")
    files.replace(path, json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    files.replace(shown, table)
    return [path, shown]
