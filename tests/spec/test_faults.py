from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "near"),
    [
        ("title: a table", "titel: a table", 1, "unknown key 'titel'", "title"),
        ("{solver: sparsegpt}", "{solver: sparsegpt, sampels: 3}", 6, "unknown key 'prune.sampels'", "samples"),
        ("  lr: 1e-4", "  lr: 1e-4\n  ephocs: 2", 11, "unknown key 'tune.ephocs'", "epochs"),
        ("grid:", "evaluate:\n  a:\n    limt: 3\ngrid:", 13, "unknown key 'evaluate.a.limt'", "limit"),
        ("grid:", "paper: {id: a, name: b,\n  tabel: c}\ngrid:", 12, "unknown key 'paper.tabel'", "table"),
        ("grid:", "cases:\n- when: {tune.loss: ce}\n  st: {tune.lr: 1}\ngrid:", 13, "unknown key 'cases.0.st'", "set"),
        (
            "grid:",
            "reference:\n  cells:\n    dense:\n      valu: 3\ngrid:",
            14,
            "unknown key 'reference.cells.dense.valu'",
            "value",
        ),
    ],
)
def test_an_unknown_key_has_its_line_and_the_nearest(registry, old, new, line, what, near):
    problem = next(p for p in registry.check((old, new)) if p.what.startswith("unknown key"))
    assert problem.what == what and problem.where.endswith(f":{line}") and near in problem.nearest


def test_all_problems_of_a_file_are_told_at_once(registry):
    found = registry.check(("  epochs: 2", "  epochs: -1\n  seeds: 3"), ("sparsegpt", "sparsegtp"), ("1e-3", "x"))
    assert [problem.where.rpartition(":")[2] for problem in found] == ["5", "6", "9", "10"]


def test_the_same_problem_at_many_cells_and_scales_is_told_once(registry):
    registry.one(("  lr: 1e-4", "  lr: -1"), ("grid:", "scales: {small: {data: pairs:size=3}, tiny: {}}\ngrid:"))


SCALED = "scales: {small: {data: pairs:size=3},\n  tiny: {tune: {batch_size: 3}}}\ngrid:"


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("task: translation", "task: transalation", 4, "task: unknown task 'transalation'"),
        ("task: translation", "task: translation:beams=x", 4, "task: task 'translation': option beams=x should be int"),
        ("data: pairs", "data: books", 3, "data: task 'translation' reads translation data, but 'books' is text"),
    ],
)
def test_what_every_section_inherits_is_told_once_at_its_own_key(registry, old, new, line, what):
    found, problem = registry.one((old, new))
    assert (found, problem.what) == (line, what)


def test_what_a_section_says_itself_is_told_of_the_section(registry):
    own = registry.check(("task: translation", "task: tranalation"), ("  lr: 1e-4", "  lr: 1e-4\n  task: translatio"))
    assert [problem.what for problem in own] == [
        "task: unknown task 'tranalation'", "tune.task: unknown task 'translatio'",
    ]  # fmt: skip


def test_one_mistake_at_many_scales_is_told_once_with_its_places(registry):
    line, problem = registry.one(("  lr: 1e-4\n", ""), ("grid:", SCALED))
    assert line == 7 and problem.what == "tune.lr is missing"
    assert problem.hint.startswith("also at ") and problem.hint.endswith("x.yaml:11")
    _, problem = registry.one(("  lr: 1e-4", "  lr: -1"), ("grid:", SCALED))
    assert problem.hint is None


def test_wrong_types_at_the_top_are_told(registry):
    found = registry.check(
        ("title: a table", "title: 3"), ("grid:", "seeds: [a]\nbaselines: [sparse]\nclaims: 3\ngrid:")
    )
    assert [problem.what.partition(":")[0] for problem in found] == ["title", "baselines.0", "seeds.0", "claims"]
    assert [problem.where.rpartition(":")[2] for problem in found] == ["1", "12", "11", "13"]
