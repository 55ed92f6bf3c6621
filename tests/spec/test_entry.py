from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def test_every_scale_is_read_at_once_or_one_of_them(registry):
    registry.read(SCALED)
    each, scales = spec.read_each("x", root=registry.root), ("paper", "tiny", "small")
    alone = [spec.read("x", scale, registry.root) for scale in scales]
    assert [entry.model_dump() for entry in each] == [entry.model_dump() for entry in alone]
    assert [(entry.scale, entry.model) for entry in each] == list(
        zip(scales, ("org/t5", "tiny/t5", "org/t5"), strict=True)
    )
    assert all(entry.top is each[0] for entry in each)
    assert [entry.scale for entry in spec.read_each("x", "small", registry.root)] == ["small"]
    assert spec.read_each("x", "huge", registry.root) == []
    assert registry.check(SCALED, ("seeds: [1]", "seeds: []"))
    with pytest.raises(Problem, match="seeds"):
        spec.read_each("x", root=registry.root)


def test_an_unknown_entry_is_told_with_the_nearest(registry):
    registry.write()
    with pytest.raises(Problem, match="unknown entry 'y'"):
        spec.read("y", root=registry.root)


def test_a_file_that_is_no_yaml_is_one_problem(registry):
    line, problem = registry.one(text="title: [a\nmodel: b\n")
    assert line == 2 and "no YAML" in problem.what


@pytest.mark.parametrize("name", ['""', "a/b", "../../x", "1a", "a b", '"a\\n"'])
def test_an_evaluation_has_a_plain_name(registry, name):
    line, problem = registry.one(("grid:", f"evaluate:\n  bleu-1.a_b:\n  {name}: {{limit: 3}}\ngrid:"))
    assert line in (11, 13) and "cannot name an evaluation" in problem.what


@pytest.mark.parametrize("wrong", ["[]", "[1, 1]", "[-1]", "[4294967296]"])
def test_seeds_are_distinct_and_in_range(registry, wrong):
    line, problem = registry.one(("grid:", f"seeds: {wrong}\ngrid:"))
    assert line == 11 and "distinct whole numbers from 0 to 4294967295" in problem.what
    assert registry.check(("grid:", "seeds: [4294967295]\ngrid:")) == []


@pytest.mark.parametrize("section", ["prepare", "prune", "tune"])
def test_a_section_has_a_seed_in_range(registry, section):
    registry.write()
    with pytest.raises(Problem, match=f"{section}.seed"):
        spec.read("x", root=registry.root, set=[f"{section}.seed=4294967296"])
    assert spec.read("x", root=registry.root, set=[f"{section}.seed=4294967295"])


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


RICH = """\
title: a
paper: {id: a, name: b}
model: org/t5
data: pairs
task: translation
prepare: {epochs: 1, lr: 1e-3, betas: [0.9, 0.99]}
prune: {solver: sparsegpt}
tune: {epochs: 2, lr: 1e-4}
evaluate: {one: {limit: 3}, zero: {task: zero_shot}}
grid: {prune.sparsity: [0.5, 0.75], tune.loss: {ce: cross_entropy, sh: squarehead}, arm: {a: {tune: {lr: 1}}, b: null}}
cases: [{when: {prune.sparsity: [0.5]}, set: {tune.epochs: 4}}]
chain: prune.sparsity
baselines: [dense]
seeds: [0, 1]
scales: {tiny: {model: tiny/t5, tune.steps: 3}, small: null}
reference: {metric: one, read: x, cells: {dense: 1, 0.5/ce/a: {value: null}}}
claims: [sh > ce at prune.sparsity >= 0.5]
"""
JUNK = st.sampled_from(
    [None, True, 3, -1.5, float("nan"), "", "x", "a/b", "tune.lr", [], [None], [[1]], {}, {"x": 1}, {"a.b": [{}]}]
)


def places(tree, path=()):
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


TREE = yaml.safe_load(RICH)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from([path for path in places(TREE) if path]), junk=JUNK, drop=st.booleans())
def test_whatever_is_written_the_answer_is_problems_never_a_traceback(registry, path, junk, drop):
    tree = copy.deepcopy(TREE)
    node = tree
    for key in path[:-1]:
        node = node[key]
    if drop:
        del node[path[-1]]
    else:
        node[path[-1]] = junk
    for problem in registry.check(text=yaml.safe_dump(tree, sort_keys=False)):
        assert "x.yaml" in problem.where


def test_the_rich_entry_itself_is_good(registry):
    assert registry.check(text=RICH) == []
