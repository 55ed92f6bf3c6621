from __future__ import annotations

import pytest

from harness.problems import Problem
from harness.spec import merge, yaml_lines


def at_scale(tmp_path, text, scale="small"):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf8")
    return merge.at_scale(yaml_lines.load(path), scale)


def test_a_scale_is_laid_over_the_top_nested_or_dotted(tmp_path):
    text = """\
model: a
tune: {lr: 1, epochs: 2}
prune.samples: 4
grid: {prune.sparsity: [1, 2], tune.lr: [3]}
evaluate: {one: {limit: 1, split: x}, two: {}}
scales:
  small:
    model: b
    tune: {steps: 3}
    prune.samples: 5
    prepare.lr: 1
    grid: {prune.sparsity: [9], tune.lr: null, arm: {a: {}}}
    evaluate: {one: {limit: 2}, two: null}
"""
    merged = at_scale(tmp_path, text)
    assert merged.data == {
        "model": "b", "tune": {"lr": 1, "steps": 3}, "prune": {"samples": 5}, "prepare": {"lr": 1},
        "grid": {"prune.sparsity": [9], "arm": {"a": {}}}, "evaluate": {"one": {"limit": 2, "split": "x"}},
    }  # fmt: skip
    places = ("model", "tune.lr", "tune.steps", "prune.samples", "grid.prune.sparsity.0", "evaluate.one.split")
    assert [int(merged.where(place).rpartition(":")[2]) for place in places] == [8, 2, 9, 10, 12, 5]
    assert at_scale(tmp_path, text, "paper").data["grid"] == {"prune.sparsity": [1, 2], "tune.lr": [3]}


def test_an_axis_is_replaced_whole(tmp_path):
    text = "model: a\ngrid: {tune.loss: {a: 1, b: 2}}\nscales: {small: {grid: {tune.loss: {c: 3}}}}\n"
    assert at_scale(tmp_path, text).data["grid"] == {"tune.loss": {"c": 3}}


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("model: a\nscales:\n  smal: {}\n", ":3", "unknown scale 'smal'"),
        ("model: tiny/a\nscales:\n  tiny: {}\n", ":3", "the top level of this entry is its scale 'tiny'"),
        ("model: a\nscales: [small]\n", ":2", "a mapping"),
        ("model: a\nscales:\n  small: 3\n", ":3", "a mapping"),
        ("model: a\nscales: {tiny: {}}\n", ":2", "unknown scale 'small'"),
        ("model: a\n", ":1", "unknown scale 'small'"),
        ("tune: {lr: 1}\ntune.lr: 2\nscales: {small: {}}\n", ":2", "stands twice, nested and dotted"),
        ("tune: 3\ntune.lr: 2\nscales: {small: {}}\n", ":2", "tune is a mapping"),
    ],
)
def test_a_wrong_scale_is_told_with_its_line(tmp_path, text, line, part):
    with pytest.raises(Problem) as caught:
        at_scale(tmp_path, text)
    assert caught.value.where.endswith(line) and part in caught.value.what


def labels(cells):
    return [cell.label for cell in cells if cell.baseline is None]


def test_set_wins_over_everything_and_steps_displace_epochs(registry):
    cases = ("grid:", "cases: [{when: {tune.loss: sh}, set: {tune: {epochs: 9, lr: 5}}}]\ngrid:")
    tunes = [cell.settings["tune"] for cell in registry.cells(cases, set=["tune.steps=10"]) if cell.settings["tune"]]
    assert {(tune["steps"], tune["epochs"]) for tune in tunes} == {(10, None)}
    assert {tune["lr"] for tune in tunes} == {1e-4, 5.0}


@pytest.mark.parametrize(
    ("set", "left"),
    [
        (["prune.sparsity=0.6"], ["0.6/ce", "0.6/sh"]),
        (["prune.sparsity=[0.1, 0.5]", "tune.loss=sh"], ["0.1/sh", "0.5/sh"]),
        (["tune.loss=[sh, ce]"], ["0.5/sh", "0.5/ce", "0.75/sh", "0.75/ce"]),
    ],
)
def test_set_picks_from_an_axis(registry, set, left):
    assert labels(registry.cells(set=set)) == left


def test_set_takes_seeds_and_whole_sections(registry):
    assert {cell.seed for cell in registry.cells(set=["seeds=3"]) if cell.baseline is None} == {3}
    pruned = registry.cells(
        ("  tune.loss: {ce: cross_entropy, sh: cross_entropy + squarehead}\n", ""), set=["tune=null"]
    )
    assert all(cell.settings["tune"] is None for cell in pruned) and labels(pruned) == ["0.5", "0.75"]
    assert registry.cells(set=["evaluate.translation.limit=5"])[0].settings["evaluate"]["translation"]["limit"] == 5


@pytest.mark.parametrize(
    ("set", "part", "near"),
    [
        ("tune.stepz=3", "unknown setting 'tune.stepz'", "tune.steps"),
        ("tune.loss=squarehead", "unknown label of the axis 'tune.loss' 'squarehead'", None),
        ("evaluate.translaton.limit=3", "unknown setting", "evaluate.translation.limit"),
        ("tune.lr", "cannot read 'tune.lr'", None),
        ("tune.lr=[", "no YAML", None),
        ("tune.lr=fast", "tune.lr: should be a valid number", None),
        ("prune.sparsity=2", "prune.sparsity: sparsity is at least 0", None),
        ("tune=null", "tune follows from the axis 'tune.loss'", None),
    ],
)
def test_a_wrong_set_is_told_with_itself_as_the_place(registry, set, part, near):
    with pytest.raises(Problem) as caught:
        registry.cells(set=[set])
    assert caught.value.where.startswith(f"--set {set}") and part in caught.value.what
    assert near is None or near in caught.value.nearest


def test_set_may_not_fight_an_axis(registry):
    arms = ("  tune.loss:", "  arm: {long: {tune.epochs: 9}, short: {tune.epochs: 1}}\n  tune.loss:")
    with pytest.raises(Problem, match=r"tune\.steps follows from the axis 'arm'"):
        registry.cells(arms, set=["tune.steps=3"])
    assert labels(registry.cells(arms, set=["arm=long"]))[0] == "0.5/long/ce"
