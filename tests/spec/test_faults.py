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


def test_wrong_types_at_the_top_are_told(registry):
    found = registry.check(
        ("title: a table", "title: 3"), ("grid:", "seeds: [a]\nbaselines: [sparse]\nclaims: 3\ngrid:")
    )
    assert [problem.what.partition(":")[0] for problem in found] == ["title", "baselines.0", "seeds.0", "claims"]
    assert [problem.where.rpartition(":")[2] for problem in found] == ["1", "12", "11", "13"]
