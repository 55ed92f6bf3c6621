from __future__ import annotations

import subprocess
import sys

import pytest

from harness.problems import Problem
from harness.spec import entry as spec

SCALED = ("grid:", "scales:\n  tiny: {model: tiny/t5, tune: {steps: 3}, seeds: [1]}\n  small:\ngrid:")


def test_an_entry_knows_its_name_scale_and_places(registry):
    entry = registry.read(SCALED, scale="tiny")
    assert (entry.name, entry.scale, entry.model, entry.top.model) == ("x", "tiny", "tiny/t5", "org/t5")
    assert entry.where("model").endswith("x.yaml:12") and entry.where("task").endswith("x.yaml:4")
    assert entry.has("seeds") and not entry.top.has("seeds")
    assert registry.read(SCALED).scale == "paper"


def test_a_scale_changes_values_only(registry):
    tiny, paper = registry.cells(SCALED, scale="tiny"), registry.cells(SCALED)
    assert [cell.label for cell in tiny] == [cell.label for cell in paper]
    assert (tiny[-1].settings["tune"]["steps"], tiny[-1].settings["tune"]["epochs"]) == (3, None)
    assert tiny[-1].settings["tune"]["lr"] == paper[-1].settings["tune"]["lr"]


def test_scales_are_listed_with_the_top_level_first(registry):
    registry.read(SCALED)
    assert spec.scales("x", root=registry.root) == ("paper", "tiny", "small")
    with pytest.raises(Problem) as caught:
        spec.read("x", "smal", root=registry.root)
    assert caught.value.nearest == ("small",)


def test_an_unknown_entry_is_told_with_the_nearest(registry):
    registry.write()
    with pytest.raises(Problem, match="unknown entry 'y'"):
        spec.read("y", root=registry.root)


def test_a_file_that_is_no_yaml_is_one_problem(registry):
    line, problem = registry.one(text="title: [a\nmodel: b\n")
    assert line == 2 and "no YAML" in problem.what


def test_an_entry_cannot_be_changed(registry):
    with pytest.raises(ValueError, match="frozen"):
        registry.read().title = "other"


def test_reading_and_expanding_imports_nothing_heavy(registry):
    registry.write()
    code = (
        "import sys, pathlib; from harness.spec import entry, grid\n"
        "heavy = {'torch', 'transformers', 'datasets', 'mlflow', 'pandas', 'matplotlib', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
