from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness.tracking import progress
from harness.tracking.progress import Bars, clock


def follow(plan, events, terminal=False):
    """Returns what is printed while events happen."""
    out = io.StringIO()
    with Bars(plan, Console(file=out, force_terminal=terminal, width=120, color_system=None)) as bars:
        for event in events:
            bars.listen(event)
    return out.getvalue()


@pytest.fixture
def plan(samples, entry, results):
    return samples.planned(entry, results, ("dense", "0.5/squarehead"))


def test_without_a_terminal_there_is_a_line_a_stage(samples, plan, results):
    lines = follow(plan, samples.run(plan, results)).splitlines()
    assert len(lines) == len(plan.states) + 1
    assert lines[0].startswith(" 1/9 prepare/tiny-t5.cldr_pairs-") or lines[0].startswith("1/9 prepare/tiny-t5")
    assert lines[-1].startswith("9 stages: 9 computed; ")


def test_what_is_found_is_only_counted(samples, plan, results):
    list(samples.run(plan, results))
    assert follow(plan, samples.run(plan, results)).startswith("9 stages: 9 found; ")


def test_failures_are_listed_at_the_end_with_their_log_and_cells(samples, plan, results):
    text = follow(plan, samples.run(plan, results, fail="tune"))
    end = text.split("9 stages: ")[1]
    assert end.startswith("3 computed, 3 failed, 3 left out; ")
    assert end.count("ZeroDivisionError: made to fail") == 3
    assert end.count("cells without a result: 0.5/squarehead") == 3
    logs = [line.split("log: ")[1] for line in end.splitlines() if "log: " in line]
    assert len(logs) == 3
    assert all("made to fail" in Path(log).read_text() for log in logs)


def test_an_earlier_failure_says_how_to_try_again(samples, plan, results):
    list(samples.run(plan, results, fail="prepare"))
    text = follow(plan, samples.run(plan, results))
    assert "--retry computes it again" in text
    assert "1 failed, 8 left out" in text


def test_on_a_terminal_there_are_bars_with_values_and_time_left(samples, plan, results):
    text = follow(plan, samples.run(plan, results), terminal=True)
    assert "all stages" in text
    assert "9/9" in text


def test_time_left_is_a_lower_bound_until_every_kind_was_timed(samples, plan, results, monkeypatch):
    bars = Bars(plan, Console(file=io.StringIO()))
    stages = {stage.name: stage for stage in plan.stages}
    bars._took = {"prepare": [10.0], "prune": [2.0, 4.0]}
    bars._todo = {stages["prune"], stages["tune"]}
    assert bars._time_left(7.0) == "at least 0:10 left"
    bars._took["tune"] = [60.0]
    assert bars._time_left(7.0) == "1:10 left"
    bars._todo = set()
    assert bars._time_left(7.0) == "7.0 s left"
    assert bars._time_left(0.0) == ""


def test_the_stage_in_hand_is_extrapolated_from_its_speed(plan, monkeypatch):
    bars = Bars(plan, Console(file=io.StringIO()))
    now = time.monotonic()
    bars._stage_begin = now
    monkeypatch.setattr(progress.time, "monotonic", lambda: now + 20)
    assert bars._in_hand(25, 100) == pytest.approx(60)


def test_a_message_with_brackets_is_printed_as_it_is(samples, plan, results, monkeypatch):
    stage = samples.stage
    broken = "Problem with [bold] and [/nothing]"

    def run(job):
        raise ValueError(broken)
        yield

    monkeypatch.setattr(samples, "stage", lambda name, fail: type("M", (), {"VERSION": 1, "run": run}))
    assert broken in follow(plan, samples.run(plan, results))
    monkeypatch.setattr(samples, "stage", stage)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (10, "0:10"), (187.4, "3:07"), (7510, "2:05:10")]
)
def test_durations_are_written_as_people_read_them(seconds, text):
    assert clock(seconds) == text
