from __future__ import annotations

import pytest

from harness.problems import Problem


def test_baselines_come_first_then_the_grid_in_its_order_with_seeds_innermost(registry):
    found = registry.cells(("grid:", "seeds: [0, 7]\ngrid:"))
    assert [(cell.label, cell.seed) for cell in found] == [
        ("dense", None), ("0.5/one_shot", None), ("0.75/one_shot", None),
        ("0.5/ce", 0), ("0.5/ce", 7), ("0.5/sh", 0), ("0.5/sh", 7),
        ("0.75/ce", 0), ("0.75/ce", 7), ("0.75/sh", 0), ("0.75/sh", 7),
    ]  # fmt: skip
    assert {(cell.entry, cell.scale) for cell in found} == {("x", "paper")}
    assert [cell.baseline for cell in found[:4]] == ["dense", "one_shot", "one_shot", None]
    assert [cell.settings["tune"]["seed"] for cell in found[3:5]] == [0, 7]


def test_a_baseline_has_the_axes_that_matter_to_it_and_leaves_the_rest_out(registry):
    dense, half, *_ = registry.cells()
    assert dense.axes == {} and dense.settings["prune"] is None and dense.settings["tune"] is None
    assert half.axes == {"prune.sparsity": "0.5"} and half.values == {"prune.sparsity": 0.5}
    assert half.settings["prune"]["sparsity"] == 0.5 and half.settings["tune"] is None


def test_baselines_may_be_left_out(registry):
    assert all(cell.baseline is None for cell in registry.cells(("grid:", "baselines: []\ngrid:")))
    assert {cell.baseline for cell in registry.cells(("grid:", "baselines: [dense]\ngrid:"))} == {"dense", None}


NO_TUNE = (
    ("tune:\n  loss: cross_entropy\n  epochs: 2\n  lr: 1e-4\n", ""),
    ("  tune.loss: {ce: cross_entropy, sh: cross_entropy + squarehead}\n", ""),
)


def test_without_tune_the_cells_are_the_pruned_models_and_seeds_are_prunes(registry):
    found = registry.cells(*NO_TUNE, ("grid:", "seeds: [1, 2]\ngrid:"))
    assert [(cell.label, cell.seed) for cell in found] == [
        ("dense", None), ("0.5", 1), ("0.5", 2), ("0.75", 1), ("0.75", 2),
    ]  # fmt: skip
    assert [cell.settings["prune"]["seed"] for cell in found[1:]] == [1, 2, 1, 2]


def test_without_a_grid_a_cell_is_called_by_what_was_done(registry):
    text = "title: a\nmodel: org/a\ndata: pairs\ntask: translation\n"
    assert [cell.label for cell in registry.cells(text=text)] == ["dense"]
    text += "prune: {solver: sparsegpt, sparsity: 0.5}\n"
    assert [(cell.label, cell.seed) for cell in registry.cells(text=text)] == [("dense", None), ("pruned", 0)]
    text += "tune: {loss: cross_entropy, steps: 1, lr: 1, seed: 4}\n"
    assert [(cell.label, cell.seed) for cell in registry.cells(text=text)] == [
        ("dense", None), ("one_shot", None), ("tuned", 4),
    ]  # fmt: skip


def test_an_arm_may_leave_the_tuning_out(registry):
    arms = "  arm: {bare: {tune: null}, full: {}}\n"
    found = registry.cells(("  tune.loss: {ce: cross_entropy, sh: cross_entropy + squarehead}\n", arms))
    stages = {cell.label: cell.settings["tune"] is not None for cell in found if cell.baseline is None}
    assert stages == {"0.5/bare": False, "0.5/full": True, "0.75/bare": False, "0.75/full": True}


def test_in_a_chain_each_cell_follows_its_own_arm_and_seed(registry):
    found = registry.cells(
        ("[0.5, 0.75]", "[0.5, 0.75, 0.9]"), ("grid:", "chain: prune.sparsity\nseeds: [0, 1]\ngrid:")
    )
    previous = {(cell.label, cell.seed): cell.previous for cell in found}
    assert previous["0.5/sh", 1] is None and previous["dense", None] is None and previous["0.9/one_shot", None] is None
    before = previous["0.9/sh", 1]
    assert (before.label, before.seed) == ("0.75/sh", 1) and before is found[
        [c.label for c in found].index("0.75/sh") + 1
    ]
    assert (before.previous.label, before.previous.seed) == ("0.5/sh", 1)


@pytest.mark.parametrize(
    ("chain", "line", "part"),
    [
        ("chain: prune.sparsty", 11, "chain: the grid has no axis 'prune.sparsty'"),
        ("chain: tune.loss", 11, "chain: the axis 'tune.loss' has values that are no numbers"),
    ],
)
def test_a_chain_runs_along_an_axis_of_numbers(registry, chain, line, part):
    found, problem = registry.one(("grid:", f"{chain}\ngrid:"))
    assert found == line and part in problem.what


@pytest.mark.parametrize(
    ("replaced", "line", "part"),
    [
        ([*NO_TUNE, ("grid:", "chain: prune.sparsity\ngrid:")], 7, "a chain starts each cell from tuned weights"),
        ([("org/t5", "tiny/t5"), ("prepare: {epochs: 1, lr: 1e-3}\n", "")], 2, "random weights and no prepare"),
        ([("  lr: 1e-4", "  lr: 1e-4\n  seed: 3"), ("grid:", "seeds: [0]\ngrid:")], 11, "both seeds and tune.seed"),
        ([("grid:", "seeds: [0, 0]\ngrid:")], 11, "distinct whole numbers"),
        ([("grid:", "seeds: []\ngrid:")], 11, "one or more"),
        ([("{solver: sparsegpt}", "null"), ("prune.sparsity: [0.5, 0.75]", "tune.lr: [1, 2]")], 7, "there is no prune"),
    ],
)  # fmt: skip
def test_what_cannot_stand_together_is_told(registry, replaced, line, part):
    found, problem = registry.one(*replaced)
    assert found == line and part in problem.what


def test_cells_of_a_wrong_entry_are_refused_with_the_number_of_problems(registry):
    with pytest.raises(Problem) as caught:
        registry.cells(("sparsegpt", "sparsegtp"), ("lr: 1e-4", "lr: -1"))
    assert caught.value.nearest == ("sparsegpt",) and "and 1 more: harness check x" in caught.value.hint


def test_problems_of_the_command_line_are_not_sent_to_check_which_knows_nothing_of_it(registry):
    with pytest.raises(Problem) as caught:
        registry.read(set=["tune.lr=-1", "prune.samples=0"])
    assert caught.value.hint == "and 1 more"


def test_a_frozen_cell(registry):
    with pytest.raises(AttributeError):
        registry.cells()[0].label = "other"
