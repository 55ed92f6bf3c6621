"""Every golden file says which commit of whose code made it, and how that was called."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_golden_file_names_its_code_and_its_command(file):
    said = json.loads(file.read_text(encoding="utf8"))
    by = said["made_by"]
    for code in by.values() if isinstance(by, dict) else (by,):
        assert re.search(r"[\w-]+/[\w.-]+@[0-9a-f]{7,40}\b|the same commit", code), code
    assert len(said["made_with"].split()) > 5
    assert file.stat().st_size < 50_000
