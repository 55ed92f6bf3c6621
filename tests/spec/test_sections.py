from __future__ import annotations

import pytest

from harness.spec.sections import SECTIONS, lay, unknown_setting

TUNE = "tune:\n  loss: cross_entropy\n  epochs: 2\n  lr: 1e-4\n"


def test_a_section_comes_out_with_every_default_and_option(registry):
    cell = registry.cells()[-1]
    assert cell.settings["tune"] == {
        "data": "pairs:size=100", "task": "translation:beams=5,max_source=64", "split": "train", "rows": None,
        "steps": None, "epochs": 2.0, "tokens": None, "lr": 1e-4, "warmup": 0, "schedule": "linear", "batch_size": 16,
        "accumulation": 1, "weight_decay": 0.0, "betas": [0.9, 0.999], "clip": None, "precision": "fp32", "seed": 0,
        "recompute": False, "checkpoint_every": 100,
        "method": "masked", "loss": "cross_entropy + squarehead:eps=0.01", "teacher": "dense",
        "ramp": None, "restart": False, "last": None,
    }  # fmt: skip
    assert cell.settings["pretrain"] is None and cell.settings["prune"] == {
        "start": "dense",
        "data": "pairs:size=100", "task": "translation:beams=5,max_source=64", "split": "train", "criterion": None,
        "solver": "sparsegpt:block=128", "pattern": "unstructured", "sparsity": 0.75, "allocation": "uniform",
        "rows": None, "samples": 128, "batch_size": 4, "seed": 0, "ramp": "one_shot", "refiner": None, "skip": [],
        "dtype": "float32", "search_data": None, "search_task": None, "search_split": "validation",
        "search_limit": None,
    }  # fmt: skip
    assert cell.settings["prepare"]["loss"] == "cross_entropy"
    assert cell.settings["evaluate"] == {
        "translation": {
            "data": "pairs:size=100", "task": "translation:beams=5,max_source=64", "split": "test", "metric": "bleu",
            "limit": None, "batch_size": 16,
        }
    }  # fmt: skip


def test_every_field_is_described():
    for section in SECTIONS.values():
        assert all(field.description for field in section.model_fields.values())


@pytest.mark.parametrize(
    ("old", "new", "line", "part"),
    [
        ("  epochs: 2\n", "  epochs: 2\n  steps: 3\n", 7, "tune: give exactly one of steps, epochs and tokens"),
        ("  epochs: 2\n", "", 7, "tune: give exactly one of steps, epochs and tokens"),
        ("  epochs: 2", "  epochs: 0", 9, "tune.epochs: should be at least 0.0001, not 0"),
        ("  epochs: 2", "  epochs: 1e-300", 9, "tune.epochs: should be at least 0.0001, not 1e-300"),
        ("  epochs: 2", "  epochs: 1e300", 9, "tune.epochs: should be at most 1e+06"),
        ("  epochs: 2", f"  tokens: {10**30}", 9, "tune.tokens: should be at most 9.0072e+15, not 1000"),
        ("  epochs: 2", f"  steps: {10**20}", 9, "tune.steps: should be at most 9.0072e+15"),
        ("  lr: 1e-4", f"  lr: 1e-4\n  batch_size: {10**20}", 11, "tune.batch_size: should be at most 9.0072e+15"),
        ("  lr: 1e-4", "  lr: 1e-300", 10, "tune.lr: should be at least 1e-12"),
        ("  lr: 1e-4", "  lr: 100", 10, "tune.lr: should be at most 10, not 100"),
        ("  lr: 1e-4", "  lr: 1e-4\n  clip: 1e-300", 11, "tune.clip: should be at least 1e-09"),
        ("  epochs: 2\n", "  steps: 1\n  warmup: 1\n", 10, "a single step that warms up has the rate 0"),
        ("  epochs: 2\n", "  steps: 1\n  warmup: 0.9\n", 10, "a single step that warms up has the rate 0"),
        ("cross_entropy + sq", "0*cross_entropy + 0*sq", 13, "'0*cross_entropy + 0*squarehead' weighs nothing"),
        ("  lr: 1e-4", "  lr: fast", 10, "tune.lr: should be a valid number, not 'fast'"),
        ("  lr: 1e-4\n", "", 7, "tune.lr is missing"),
        ("  lr: 1e-4", '  lr: "1e-4"', 10, "tune.lr: should be a valid number, not '1e-4'"),
        ("  lr: 1e-4", "  lr: 1e-4\n  batch_size: 2.5", 11, "tune.batch_size: should be a valid integer"),
        ("  lr: 1e-4", "  lr: 1e-4\n  warmup: 1.5", 11, "tune.warmup: 1.5 is no fraction below 1"),
        ("  lr: 1e-4", "  lr: 1e-4\n  warmup: slow", 11, "tune.warmup: should be a valid number"),
        ("  epochs: 2\n", "  steps: 5\n  warmup: 6\n", 10, "6 steps of warm-up are more than the 5 steps"),
        ("  lr: 1e-4", "  lr: 1e-4\n  accumulation: 3", 11, "a batch of 16 does not divide into 3 micro-batches"),
        ("  lr: 1e-4", "  lr: 1e-4\n  betas: [0.9, 1]", 11, "each beta is at least 0 and below 1"),
        ("  lr: 1e-4", "  lr: 1e-4\n  betas: [0.9]", 11, "tune.betas has too few items"),
        ("  lr: 1e-4", "  lr: 1e-4\n  precision: fp8", 11, "tune.precision: should be 'fp32', 'bf16' or 'fp16'"),
        ("  lr: 1e-4", "  lr: 1e-4\n  schedule: linaer", 11, "unknown schedule 'linaer'"),
        ("prepare: {epochs: 1, lr: 1e-3}", "prepare: {epochs: 1, lr: 1e-3, loss: kl}", 5, "made here without one"),
    ],
)
def test_a_wrong_training_setting_is_named_with_its_line(registry, old, new, line, part):
    found, problem = registry.one((old, new))
    assert found == line and part in problem.what


@pytest.mark.parametrize(
    ("sparsity", "said"),
    [
        ("1", "not 1.0"),
        ("1.5", "not 1.5"),
        ("-0.1", "not -0.1"),
        ("50", "not 50.0"),
    ],
)
def test_sparsity_is_at_least_0_and_below_1(registry, sparsity, said):
    line, problem = registry.one(("[0.5, 0.75]", f"[0.5,\n   {sparsity}]"))
    assert line == 13 and problem.what == f"prune.sparsity: sparsity is at least 0 and below 1, {said}"


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e999"])
def test_a_number_is_finite(registry, number):
    line, problem = registry.one(("  lr: 1e-4", f"  lr: {number}"))
    assert line == 10 and problem.what.startswith("tune.lr: should be a finite number")
    assert "finite" in registry.one(("[0.5, 0.75]", f"[{number}]"))[1].what


def test_a_percentage_is_told_how_to_be_written(registry):
    assert registry.one(("[0.5, 0.75]", "[50]"))[1].hint == "for 50% write 0.5"


@pytest.mark.parametrize("sparsity", [0, 0.0])
def test_sparsity_may_be_0(registry, sparsity):
    assert registry.check(("[0.5, 0.75]", f"[{sparsity}]")) == []


def test_missing_sparsity_points_at_the_section(registry):
    line, problem = registry.one(("  prune.sparsity: [0.5, 0.75]\n", ""))
    assert line == 6 and problem.what == "prune.sparsity: it is missing"


@pytest.mark.parametrize(
    ("pattern", "sparsity"), [("2:4", 0.5), ("4:4", 0.0), ("1:4", 0.75), ("16:64", 0.75), ("nm:n=2,m=8", 0.75)]
)
def test_an_nm_pattern_keeps_n_of_m_and_gives_the_sparsity(registry, pattern, sparsity):
    found = registry.cells(("prune.sparsity: [0.5, 0.75]", f'prune.pattern: ["{pattern}"]'))
    assert {cell.settings["prune"]["sparsity"] for cell in found if cell.settings["prune"]} == {sparsity}


@pytest.mark.parametrize(
    ("prune", "part"),
    [
        ('pattern: "4:2", sparsity: 0.5', "4:2 cannot be: N:M keeps N of M weights"),
        ('pattern: "0:4"', "0:4 cannot be"),
        ('pattern: "1:4", sparsity: 0.25', "1:4 keeps 1 of 4: its sparsity is 0.75, not 0.25"),
        ("criterion: wanda, sparsity: 0.5", "give exactly one of criterion and solver"),
        ("sparsity: 0.5, allocation: even", "unknown allocation 'even'"),
        ("sparsity: 0.5, samples: 0", "prune.samples: should be at least 1"),
    ],
)
def test_a_wrong_pruning_setting_is_named_with_its_line(registry, prune, part):
    replaced = ("{solver: sparsegpt}", f"{{solver: sparsegpt, {prune}}}"), ("  prune.sparsity: [0.5, 0.75]\n", "")
    line, problem = registry.one(*replaced)
    assert line == 6 and part in problem.what


def test_a_sparsity_that_agrees_with_the_pattern_is_fine(registry):
    replaced = ("{solver: sparsegpt}", '{criterion: wanda, pattern: "2:4", sparsity: 0.5}'), (
        "  prune.sparsity: [0.5, 0.75]\n", "",
    )  # fmt: skip
    assert registry.check(*replaced) == []


def test_neither_criterion_nor_solver_is_a_problem(registry):
    assert "exactly one of criterion and solver" in registry.one(("{solver: sparsegpt}", "{samples: 4}"))[1].what


def test_the_teacher_is_left_out_where_no_term_needs_it(registry):
    teachers = {cell.label: cell.settings["tune"]["teacher"] for cell in registry.cells() if cell.settings["tune"]}
    assert teachers == {"0.5/ce": None, "0.5/sh": "dense", "0.75/ce": None, "0.75/sh": "dense"}


def test_a_loss_that_needs_a_teacher_must_have_one(registry):
    line, problem = registry.one(("  lr: 1e-4", "  lr: 1e-4\n  teacher: null"))
    assert line == 11 and "needs one" in problem.what and "squarehead" in problem.what


def test_an_evaluation_may_bring_its_own_data(registry):
    added = "evaluate:\n  zero: {task: zero_shot}\n  text: {task: modelling, data: books, limit: 3}\ngrid:"
    evaluate = registry.cells(("grid:", added))[0].settings["evaluate"]
    assert evaluate["zero"]["data"] is None and evaluate["zero"]["metric"] == "accuracy:measure=acc"
    assert (evaluate["text"]["data"], evaluate["text"]["metric"], evaluate["text"]["limit"]) == (
        "books",
        "perplexity",
        3,
    )


def test_null_data_and_task_are_the_entrys_own(registry):
    cell = registry.cells(("  lr: 1e-4", "  lr: 1e-4\n  data: null\n  task: null"))[-1]
    assert cell.settings["tune"]["data"] == "pairs:size=100"


@pytest.mark.parametrize(
    ("old", "new", "line", "part"),
    [
        (
            "data: pairs",
            "data: books",
            3,
            "data: task 'translation' reads translation data, but 'books' is text",
        ),
        ("  lr: 1e-4", "  lr: 1e-4\n  data: books", 11, "tune.data: task 'translation' reads translation data"),
        ("grid:", "evaluate:\n  a: {task: modelling}\ngrid:", 12, "evaluate.a.task: task 'modelling' reads text data"),
        (
            "grid:",
            "evaluate:\n  a: {task: zero_shot, data: pairs}\ngrid:",
            12,
            "evaluate.a.data: task 'zero_shot' brings",
        ),
        ("  lr: 1e-4", "  lr: 1e-4\n  task: zero_shot", 11, "tune.task: task 'zero_shot' only evaluates"),
    ],
)
def test_data_must_be_what_the_task_reads(registry, old, new, line, part):
    found = registry.check((old, new))
    assert found[0].where.endswith(f":{line}") and part in found[0].what


def test_a_change_displaces_its_alternative():
    assert lay({"epochs": 2, "lr": 1}, {"steps": 3}) == {"lr": 1, "steps": 3}
    assert lay({"solver": "a"}, {"criterion": "b", "solver": None}) == {"criterion": "b", "solver": None}
    assert lay({"epochs": 2}, {"steps": None}) == {"epochs": 2, "steps": None}
    assert lay({"epochs": 2}, {"steps": 1, "epochs": 1}) == {"steps": 1, "epochs": 1}


def test_settings_are_known_by_their_dotted_names():
    assert all(unknown_setting(n, ["bleu"]) is None for n in ("model", "tune", "tune.lr", "evaluate.bleu.limit"))
    assert unknown_setting("prune.sparsty", []).nearest[0] == "prune.sparsity"
    assert unknown_setting("evaluate.blue.limit", ["bleu"]).nearest[0] == "evaluate.bleu.limit"
    assert unknown_setting("evaluate", ["bleu"]) is not None


def test_tokens_give_way_to_steps_and_steps_to_tokens():
    assert lay({"tokens": 5, "lr": 1}, {"steps": 3}) == {"steps": 3, "lr": 1}
    assert lay({"epochs": 5}, {"tokens": 3}) == {"tokens": 3}


def test_the_parts_of_an_enormous_batch_are_not_all_looked_for(registry):
    _, problem = registry.one(("  lr: 1e-4", f"  lr: 1e-4\n  batch_size: {2**50}\n  accumulation: 3"))
    assert "does not divide into 3 micro-batches" in problem.what and "1, 2, 4, 8" in problem.hint
