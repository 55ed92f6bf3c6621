from __future__ import annotations

import pytest


def tunes(cells):
    return {
        cell.label: (cell.settings["tune"]["epochs"], cell.settings["tune"]["lr"])
        for cell in cells
        if cell.settings["tune"]
    }


def test_cases_follow_from_the_values_of_axes_and_later_ones_win(registry):
    cases = (
        "grid:",
        "cases:\n- {when: {prune.sparsity: 0.75}, set: {tune.epochs: 4, tune.lr: 1e-2}}\n"
        "- {when: {prune.sparsity: [0.75], tune.loss: [sh]}, set: {tune: {epochs: 8}}}\ngrid:",
    )
    assert tunes(registry.cells(cases)) == {
        "0.5/ce": (2, 1e-4), "0.5/sh": (2, 1e-4), "0.75/ce": (4, 1e-2), "0.75/sh": (8, 1e-2),
    }  # fmt: skip


@pytest.mark.parametrize("value", ["0.75", '"0.75"', "[0.75]"])
def test_a_value_may_be_written_as_number_or_label(registry, value):
    cases = ("grid:", f"cases: [{{when: {{prune.sparsity: {value}}}, set: {{tune.epochs: 4}}}}]\ngrid:")
    assert tunes(registry.cells(cases))["0.75/ce"][0] == 4


def test_a_case_that_prunes_makes_its_axis_matter_to_the_one_shot_baseline(registry):
    cases = ("grid:", "cases: [{when: {tune.loss: sh}, set: {prune.samples: 4}}]\ngrid:")
    found = {
        cell.label: cell.settings["prune"]["samples"] for cell in registry.cells(cases) if cell.baseline == "one_shot"
    }
    assert found == {"0.5/ce/one_shot": 128, "0.5/sh/one_shot": 4, "0.75/ce/one_shot": 128, "0.75/sh/one_shot": 4}


@pytest.mark.parametrize(
    ("case", "line", "part", "near"),
    [
        (
            "when: {prune.sparsty: 0.5}\n  set: {tune.lr: 1}",
            12,
            "the grid has no axis 'prune.sparsty'",
            "prune.sparsity",
        ),
        ("when: {prune.sparsity: 0.7}\n  set: {tune.lr: 1}", 12, "the axis 'prune.sparsity' has no value 0.7", "0.75"),
        ("when: {tune.loss: [ce, shh]}\n  set: {tune.lr: 1}", 12, "the axis 'tune.loss' has no value 'shh'", "sh"),
        ("when: {tune.loss: ce}\n  set: {tune.lrr: 1}", 13, "unknown setting 'tune.lrr'", "tune.lr"),
        ("when: {tune.loss: ce}\n  set: {tune.lr: -1}", 13, "tune.lr: should be at least 1e-12", None),
        (
            "when: {prune.sparsity: 0.5}\n  set: {prune.sparsity: 0.7}",
            13,
            "prune.sparsity follows from the axis 'prune.sparsity'",
            None,
        ),
        ("when: {prune.sparsity: 0.5}\n  set: {tune.loss: kl}", 13, "tune.loss follows from the axis", None),
        ("when: {tune.loss: []}\n  set: {tune.lr: 1}", 12, "no value of 'tune.loss' is named, so the case never", None),
        ("when: {}\n  set: {tune.lr: 1}", 12, "cases.0.when", None),
    ],
)
def test_a_wrong_case_is_told_with_its_line(registry, case, line, part, near):
    found, problem = registry.one(("grid:", f"cases:\n- {case}\ngrid:"))
    assert found == line and part in problem.what
    assert near is None or near in problem.nearest


def test_a_scale_may_leave_out_values_that_cases_of_the_top_name(registry):
    text = "cases:\n- {when: {prune.sparsity: 0.75}, set: {tune.epochs: 4}}\n"
    text += "scales: {tiny: {grid: {prune.sparsity: [0.5]}}}\ngrid:"
    assert registry.check(("grid:", text)) == []
    assert tunes(registry.cells(("grid:", text), scale="tiny")) == {"0.5/ce": (2, 1e-4), "0.5/sh": (2, 1e-4)}


@pytest.mark.parametrize(("when", "good"), [("a", False), ("b", True)])
def test_a_case_sets_what_the_axis_leaves_open(registry, when, good):
    axis = f"cases: [{{when: {{arm: {when}}}, set: {{tune.steps: 4}}}}]\ngrid:\n  arm: {{a: {{tune.epochs: 3}}, b: }}"
    problems = registry.check(("grid:", axis))
    assert [problem.what for problem in problems] == [] if good else "follows from the axis 'arm'" in problems[0].what
