from __future__ import annotations

import datetime
import json

from harness.bench import record
from harness.tracking.environment import environment


def test_a_record_says_what_was_timed_when_and_where():
    said = record.record("sums", repeats=3)
    assert said["benchmark"] == "sums" and said["repeats"] == 3 and said["environment"] == environment()
    assert datetime.datetime.fromisoformat(said["date"]).tzinfo is datetime.UTC


def test_record_and_table_are_written_side_by_side(tmp_path):
    said = {"benchmark": "sums", "of": "é"}
    paths = record.write(said, "| sums |\n", tmp_path / "sums.json")
    assert paths == [tmp_path / "sums.json", tmp_path / "sums.md"]
    assert json.loads(paths[0].read_text(encoding="utf8")) == said and "é" in paths[0].read_text(encoding="utf8")
    assert paths[1].read_text(encoding="utf8") == "| sums |\n"
