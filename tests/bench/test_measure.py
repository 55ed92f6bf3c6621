from __future__ import annotations

import sys

import pytest

from harness.bench import measure
from harness.problems import Problem


def python(code):
    return [sys.executable, "-S", "-c", code]


def test_wall_time_processor_time_and_peak_memory_are_the_commands(tmp_path):
    sleeps = measure.run("it", python("import time; time.sleep(0.5)"), tmp_path / "log")
    assert 0.5 <= sleeps.seconds < 20 and sleeps.cpu_seconds < sleeps.seconds
    works = measure.run("it", python("sum(range(10**7))"), tmp_path / "log")
    assert works.cpu_seconds > sleeps.cpu_seconds
    small = measure.run("it", python("pass"), tmp_path / "log")
    large = measure.run("it", python("x = b'1' * (900 << 20)"), tmp_path / "log")
    assert small.peak_bytes < large.peak_bytes and 900 << 20 < large.peak_bytes < 1000 << 20


def test_children_count_too(tmp_path):
    child = (
        "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'x = b\"1\" * (700 << 20)'], check=True)"
    )
    assert measure.run("it", python(child), tmp_path / "log").peak_bytes > 700 << 20


def test_a_failed_command_is_told_with_the_end_of_its_output(tmp_path):
    with pytest.raises(Problem, match="theirs ended with status 3") as caught:
        measure.run("theirs", python("import sys; print('out of luck'); sys.exit(3)"), tmp_path / "log")
    assert "out of luck" in str(caught.value)
    with pytest.raises(Problem, match="theirs ended with status -9"):
        measure.run("theirs", python("import os; os.kill(os.getpid(), 9)"), tmp_path / "log")
    with pytest.raises(Problem, match="theirs cannot be started: No such file"):
        measure.run("theirs", [str(tmp_path / "absent")], tmp_path / "log")


def test_the_spread_is_median_and_ends():
    assert measure.spread([3.0, 1.0, 7.0, 2.0]) == {"median": 2.5, "min": 1.0, "max": 7.0}


def test_the_line_is_that_of_least_squares():
    assert measure.line([(1, 5), (2, 7), (3, 9)]) == {"intercept": 3.0, "slope": 2.0, "r2": 1.0}
    found = measure.line([(0, 0), (1, 1), (2, 4)])
    assert found["slope"] == pytest.approx(2) and found["intercept"] == pytest.approx(-1 / 3)
    assert found["r2"] == pytest.approx(1 - (1 / 9 + 4 / 9 + 1 / 9) / (26 / 3))
