from __future__ import annotations

import pytest

from harness.spec import axes
from harness.spec.axes import Axis, Point, axes_of, label_of, settings_of


def test_labels_of_values():
    assert [label_of(v) for v in (0.5, 0.50, 1, 1.0, True, None, "2:4", 3e-5)] == [
        "0.5", "0.5", "1", "1.0", "true", "none", "2:4", "3e-05",
    ]  # fmt: skip


def test_nested_and_dotted_settings_are_the_same():
    assert settings_of({"tune": {"lr": 1, "epochs": 2}, "a.b": 3, "c": None}) == {
        "tune.lr": 1, "tune.epochs": 2, "a.b": 3, "c": None,
    }  # fmt: skip
    assert settings_of(None) == {}


def test_a_point_is_found_by_label_or_value():
    axis = Axis("x", {"half": Point(0.5, {}), "1": Point(1, {}), "on": Point(True, {})})
    assert [axis.label(v) for v in ("half", 0.5, 1, "1", True, 0.6)] == ["half", "half", "1", "1", "on", None]
    assert not axis.numeric and Axis("x", {"half": Point(0.5, {}), "1": Point(1, {})}).numeric


def test_the_three_ways_to_write_an_axis(registry):
    text = ("  tune.loss:", "  arm: {a: {tune: {lr: 1e-3}, model: org/b}, b: null}\n  tune.loss:")
    axes, problems = axes_of(registry.read(text))
    assert problems == []
    assert [(axis.name, list(axis.points)) for axis in axes] == [
        ("prune.sparsity", ["0.5", "0.75"]), ("arm", ["a", "b"]), ("tune.loss", ["ce", "sh"]),
    ]  # fmt: skip
    assert axes[0].points["0.75"].settings == {"prune.sparsity": (0.75, "grid.prune.sparsity.1")}
    assert axes[1].settings == {"tune.lr", "model"}
    assert axes[1].points["a"].settings["tune.lr"] == (1e-3, "grid.arm.a.tune.lr")


@pytest.mark.parametrize(
    ("axis", "line", "part", "near"),
    [
        ("  prune.sparsty: [0.5]", 12, "grid.prune.sparsty: unknown setting 'prune.sparsty'", "prune.sparsity"),
        ("  arm: [a, b]", 12, "grid.arm: unknown setting 'arm'", None),
        ("  arm:\n    a: 3", 13, "grid.arm.a should be a mapping of setting to value, not 3", None),
        ("  arm:\n    a:\n      tune.lrr: 3", 14, "grid.arm.a.tune.lrr: unknown setting 'tune.lrr'", "tune.lr"),
        ("  prune.samples: []", 12, "grid.prune.samples has no values", None),
        ("  prune.samples: [1,\n   1]", 13, "the label '1' stands twice", None),
        ("  model: [a, org/b]", 12, "'org/b' cannot be a label", None),
        ("  model:\n    dense: org/b", 13, "the label 'dense' is taken", None),
        ("  arm:\n    a:\n      tune: 3", 14, "grid.arm.a.tune: tune is a section", None),
        ("  prune: [1]", 12, "grid.prune.0: prune is a section", None),
        ("  model:\n    a b: a\n    a:b: b", 14, "the labels 'a b' and 'a:b' name the same file", None),
        ('  model: ["a\\nb"]', 12, "cannot be a label", None),
        ("  model: ['é: -']", 12, "cannot be a label", None),
        (f"  model: [{'m' * 101}]", 12, "cannot be a label", None),
        ("  arm:\n    a: {tune.loss: kl}\n    b:", 15, "tune.loss follows from the axis 'arm' already", None),
        ("  tune.epochs: [1]\n  tune.steps: [3]", 13, "tune.steps follows from the axis 'tune.epochs' already", None),
        ("  prune.samples: 3", 12, "grid.prune.samples: should be a", None),
    ],
)
def test_a_wrong_axis_is_told_with_its_line(registry, axis, line, part, near):
    found, problem = registry.one(
        ("  prune.sparsity: [0.5, 0.75]", axis), ("{solver: sparsegpt}", "{solver: sparsegpt, sparsity: 0.5}")
    )
    assert found == line and part in problem.what
    assert near is None or near in problem.nearest


def test_an_axis_of_many_values_is_read_in_linear_time(registry, monkeypatch):
    entry, asked = registry.read(("[0.5, 0.75]", str([0.5 + i / 1000 for i in range(400)]))), []
    plain = axes._file_name
    monkeypatch.setattr(axes, "_file_name", lambda label: asked.append(label) or plain(label))
    assert len(axes_of(entry)[0][0].points) == 400
    assert len(asked) < 4 * 400
