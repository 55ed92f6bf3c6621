from __future__ import annotations

import pytest


def test_a_choice_is_written_out_with_all_its_options(registry):
    cell = registry.cells(("{solver: sparsegpt}", "{solver: sparsegpt:block=64}"))[-1]
    assert cell.settings["prune"]["solver"] == "sparsegpt:block=64"
    assert cell.settings["tune"]["loss"] == "cross_entropy + squarehead:eps=0.01"


def test_the_weights_of_a_loss_stay(registry):
    cell = registry.cells(("sh: cross_entropy + squarehead", "sh: 0.5*cross_entropy + squarehead:eps=1e-9"))[-1]
    assert cell.settings["tune"]["loss"] == "0.5*cross_entropy + squarehead:eps=1e-09"


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "near"),
    [
        ("sparsegpt", "sparsegtp", 6, "prune.solver: unknown solver 'sparsegtp'", "sparsegpt"),
        ("sparsegpt", "sparsegpt:blok=3", 6, "prune.solver: solver 'sparsegpt' has no option 'blok'", "block"),
        ("solver: sparsegpt", "criterion: wandda", 6, "prune.criterion: unknown criterion 'wandda'", "wanda"),
        (
            "sh: cross_entropy + squarehead",
            "sh: cross_entropy + squarehed",
            13,
            "tune.loss: unknown loss",
            "squarehead",
        ),
        ("task: translation", "task: transalation", 4, "task: unknown task 'transalation'", "translation"),
        ("data: pairs", "data: pair", 3, "data: unknown data 'pair'", "pairs"),
        ("model: org/t5", "model: tiny/t6", 2, "model: unknown tiny model 'tiny/t6'", "tiny/t5"),
        ("lr: 1e-4", "lr: 1e-4\n  method: maskd", 11, "tune.method: unknown method 'maskd'", "masked"),
    ],
)
def test_an_unknown_name_has_its_line_and_the_nearest(registry, old, new, line, what, near):
    _, problem = registry.one((old, new))
    assert problem.where.endswith(f"x.yaml:{line}") and problem.what.startswith(what) and near in problem.nearest


def test_a_model_must_be_a_name(registry):
    assert registry.one(("model: org/t5", "model: ' '"))[0] == 2


def test_a_room_file_that_does_not_say_its_kind_is_named(registry, house, tmp_path):
    (tmp_path / "package/data/pairs.py").write_text("def rows(split):\n    ...\n")
    assert any("data 'pairs' does not say its KIND" in problem.what for problem in registry.check())
