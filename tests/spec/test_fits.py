from __future__ import annotations

import json

import pytest

from harness.problems import Problem
from harness.spec import fits

TEXTS = ("data: pairs\ntask: translation", "data: books\ntask: modelling")
T5, MPT = "t5; mpt models read the data books", "mpt; t5 models read the data pairs"


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "hint"),
    [
        ("model: org/t5", "model: tiny/mpt", 4, "task: mpt models do not serve the task 'translation': tiny/mpt", T5),
        ("org/t5\n" + TEXTS[0], "tiny/t5\n" + TEXTS[1], 4, "task: t5 models do not serve the task 'modelling'", MPT),
        (
            "model: org/t5",
            "model: tiny/t5\nevaluate:\n  translation:\n  a: {task: modelling, data: books}",
            5,
            "evaluate.a.task: t5 models do not serve the task 'modelling': tiny/t5",
            MPT,
        ),
    ],
)
def test_a_tiny_model_must_serve_every_task_and_is_told_once(registry, old, new, line, what, hint):
    found, problem = registry.one((old, new))
    assert found == line and problem.what.startswith(what) and problem.hint == f"those that do: {hint}"


def test_on_an_axis_of_models_only_the_misfit_is_told(registry):
    models = ("  tune.loss:", "  model: {a: tiny/t5,\n    b: tiny/mpt}\n  tune.loss:")
    _, problem = registry.one(models)
    assert "tiny/mpt" in problem.what and registry.check((models[0], models[1].replace("mpt", "t5"))) == []


def test_a_pattern_must_divide_a_tiny_models_layers(registry):
    pattern = ("prune.sparsity: [0.5, 0.75]", 'prune.pattern: ["2:4",\n    "3:7"]')
    line, problem = registry.one(("org/t5", "tiny/t5"), pattern)
    assert line == 13 and problem.what.startswith("prune.pattern: the pattern nm:n=3,m=7 has groups of 7 inputs")
    assert problem.what.endswith(": tiny/t5") and problem.hint == "groups that do: 2, 4, 8, 16, 32, 64, 128"
    assert registry.check(pattern) == []


def test_a_model_with_a_name_of_its_own_is_left_to_the_plan(registry):
    assert registry.check(("model: org/t5", "model: org/mpt")) == []


def test_a_task_that_no_family_names_is_open_to_all(registry, tmp_path):
    new = 'READS = "translation"\nMETRIC = "bleu"\ndef examples(rows):\n    ...\ndef predict(model):\n    ...\n'
    (tmp_path / "package/tasks/brand_new.py").write_text(new)
    assert registry.check(("task: translation", "task: brand_new"), ("org/t5", "tiny/mpt")) == []


@pytest.mark.parametrize(
    ("evaluate", "what", "hint"),
    [
        ("bleu: {metric: perplexity}", "evaluate.bleu.metric: metric 'perplexity' does not read", "bleu, chrf"),
        ("a: {task: zero_shot, metric: bleu}", "evaluate.a.metric: metric 'bleu' does not read", "accuracy"),
        ("a: {task: modelling, data: books, metric: 'chrf'}", "evaluate.a.metric: metric 'chrf'", "perplexity"),
    ],
)
def test_a_metric_must_read_what_the_task_predicts(registry, evaluate, what, hint):
    line, problem = registry.one(("grid:", f"evaluate:\n  {evaluate}\ngrid:"))
    assert line == 12 and problem.what.startswith(what) and problem.hint == f"for this task there is: {hint}"


def test_a_metric_that_names_the_task_fits_and_so_does_the_tasks_own(registry):
    assert registry.check(("grid:", "evaluate:\n  a: {metric: chrf}\n  b: {metric: bleu}\n  c:\ngrid:")) == []


def config(**more):
    return {"model_type": "mpt", "d_model": 512, **more}


def cell(registry, *replaced):
    return registry.cells(*replaced)[-1].settings


def test_a_real_models_family_is_known_by_its_config(registry):
    settings = cell(registry)
    assert fits.wrong_model("org/t5", {"model_type": "t5"}, settings) == []
    (problem,) = fits.wrong_model("org/mpt", config(), settings)
    assert problem.what == "model 'org/mpt': mpt models do not serve the task 'translation'"
    (problem,) = fits.wrong_model("org/x", {"model_type": "mpd"}, settings)
    assert problem.what == "model 'org/x': unknown model type 'mpd'" and problem.nearest == ("mpt",)
    assert fits.wrong_model("org/x", {}, settings)[0].what == "model 'org/x': unknown model type ''"


@pytest.mark.parametrize(
    ("pattern", "widths", "said"),
    [
        ("3:7", {"d_model": 512}, "groups of 7 inputs, which do not divide d_model = 512"),
        ("2:4", {"hidden_size": 576, "intermediate_size": 1538}, "which do not divide intermediate_size = 1538"),
        ("2:4", {"hidden_size": 576, "intermediate_size": 1536}, None),
        ("2:4", {"vocab_size": 33}, None),
        ("unstructured", {"d_model": 513}, None),
    ],
)
def test_groups_must_divide_the_widths_that_a_config_tells(house, pattern, widths, said):
    choice = "nm:n=" + pattern.replace(":", ",m=") if ":" in pattern else pattern
    problem = fits.wrong_width(widths, choice)
    assert (problem is None) is (said is None)
    if said:
        assert said in problem.what


def test_the_groups_that_divide_are_named(house):
    assert fits.wrong_width({"d_model": 24, "d_ff": 36}, "nm:n=1,m=8").hint == "groups that do: 2, 4"
    assert fits.wrong_width({"d_model": 7, "d_ff": 9}, "nm:n=1,m=2").hint is None


def test_the_pattern_of_a_real_model_is_checked_where_it_prunes(registry):
    replaced = ("prune.sparsity: [0.5, 0.75]", 'prune.pattern: ["3:7"]')
    (problem,) = fits.wrong_model("org/t5", {"model_type": "t5", "d_model": 512}, cell(registry, replaced))
    assert "model 'org/t5': the pattern nm:n=3,m=7 has groups of 7 inputs" in problem.what
    dense = registry.cells(replaced)[0].settings
    assert fits.wrong_model("org/t5", {"model_type": "t5", "d_model": 512}, dense) == []


@pytest.mark.parametrize(("text", "said"), [("{", "cannot be read"), ("[]", "no mapping"), (None, "cannot be read")])
def test_a_config_that_is_none_is_a_problem(tmp_path, text, said):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(Problem, match=said):
        fits.config_at(tmp_path)


def test_a_config_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config()))
    assert fits.config_at(tmp_path) == config()
