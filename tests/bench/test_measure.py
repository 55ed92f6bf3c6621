from __future__ import annotations

import json
import subprocess
import sys

import pytest

from harness.bench import measure
from harness.problems import Problem

MEASURE = """
import dataclasses, json, pathlib, sys
from harness.bench import measure
print(json.dumps(dataclasses.asdict(measure.run("it", sys.argv[2:], pathlib.Path(sys.argv[1])))))
"""


def python(code):
    return [sys.executable, "-S", "-c", code]


@pytest.fixture
def measured(tmp_path):
    """A function from Python code to its run, from a process that is small: the peak begins at the starter's size."""

    def run(code):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "log"), *python(code)]
        return measure.Run(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    return run


def test_wall_time_processor_time_and_peak_memory_are_the_commands(measured):
    sleeps = measured("import time; time.sleep(0.5)")
    assert 0.5 <= sleeps.seconds < 20 and sleeps.cpu_seconds < sleeps.seconds
    works = measured("sum(range(10**7))")
    assert works.cpu_seconds > sleeps.cpu_seconds
    small, large = measured("pass"), measured("x = b'1' * (300 << 20)")
    assert small.peak_bytes < 200 << 20 < 300 << 20 < large.peak_bytes < 400 << 20


def test_children_count_too(measured):
    child = (
        "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'x = b\"1\" * (300 << 20)'], check=True)"
    )
    assert measured(child).peak_bytes > 300 << 20


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
