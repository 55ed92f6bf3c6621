"""What was found out once and is quick to read again: small JSON files in the user's cache folder.

The folder is `HARNESS_CACHE`, by default `~/.cache/harness`. Nothing depends on it: a file that is not there, is
damaged or cannot be written costs time, not correctness.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read(name: str) -> dict[str, Any]:
    """Returns what a file holds; nothing where there is none yet, or a damaged one."""
    try:
        return dict(json.loads((folder() / name).read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError):
        return {}


def write(name: str, content: Mapping[str, Any]) -> None:
    """Replaces what a file holds, if the folder can be written."""
    with contextlib.suppress(OSError):
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place, delete=False, encoding="utf8") as file:
            json.dump(content, file)
        os.replace(file.name, place / name)


def folder() -> Path:
    """Returns the user's cache folder of the harness, which need not be there."""
    return Path(os.environ.get("HARNESS_CACHE") or Path.home() / ".cache" / "harness")
