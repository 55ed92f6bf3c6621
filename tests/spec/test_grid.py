from __future__ import annotations

import pytest

from harness.problems import Problem
from harness.spec import grid


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
        ([*NO_TUNE, ("grid:", "chain: prune.sparsity\ngrid:")], 7, "a chain starts each cell from trained weights"),
        ([("org/t5", "tiny/t5"), ("{solver:", "{start: base, solver:")], 6, "random weights before prepare"),
        ([("org/t5", "tiny/t5"), ("prepare: {epochs: 1, lr: 1e-3}\n", "")], 2, "random weights and no prepare"),
        ([("  lr: 1e-4", "  lr: 1e-4\n  seed: 3"), ("grid:", "seeds: [0]\ngrid:")], 11, "both seeds and tune.seed"),
        ([("  lr: 1e-4", "  lr: 1e-4\n  ramp: one_shot"), ("grid:", "chain: prune.sparsity\ngrid:")], 11, "zeros of"),
        ([("  lr: 1e-4", "  lr: 1e-4\n  ramp: one_shot"), ("sparsegpt", "sparsegtp")], 6, "unknown solver"),
        ([("  lr: 1e-4", "  lr: 1e-4\n  method: lora"), ("grid:", "chain: prune.sparsity\ngrid:")], 11, "chain cannot"),
        ([("tune:", "pretrain: {steps: 4, lr: 1e-3, method: lora}\ntune:")], 7, "and tune cannot read it"),
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


PRETRAIN = ("tune:", "pretrain: {steps: 4, lr: 1e-3}\ntune:")


def test_sparse_pretraining_has_a_baseline_of_its_own_where_it_is_asked(registry):
    found = registry.cells(PRETRAIN, ("grid:", "baselines: [one_shot, pretrained]\nseeds: [0, 1]\ngrid:"))
    assert [cell.label for cell in found if cell.baseline] == [
        *("0.5/one_shot", "0.75/one_shot", "0.5/pretrained", "0.75/pretrained")
    ]
    sections = {c.label: (c.settings["pretrain"] is not None, c.settings["tune"] is not None) for c in found}
    assert sections["0.5/one_shot"] == (False, False) and sections["0.5/pretrained"] == (True, False)
    assert sections["0.5/ce"] == (True, True)
    assert [cell.settings["tune"]["seed"] for cell in found if cell.label == "0.5/ce"] == [0, 1]
    assert {cell.settings["pretrain"]["seed"] for cell in found if cell.label == "0.5/ce"} == {0}
    assert not [cell for cell in registry.cells() if cell.baseline == "pretrained"]


def test_sparse_pretraining_alone_is_what_the_seeds_repeat(registry):
    found = registry.cells(*NO_TUNE, ("grid:", "pretrain: {steps: 4, lr: 1e-3}\nseeds: [3, 4]\ngrid:"))
    own = [cell for cell in found if cell.baseline is None]
    assert [(cell.label, cell.settings["pretrain"]["seed"]) for cell in own] == [
        ("0.5", 3), ("0.5", 4), ("0.75", 3), ("0.75", 4),
    ]  # fmt: skip
    assert [cell.label for cell in found if cell.baseline] == ["dense", "0.5/one_shot", "0.75/one_shot"]
    text = "title: a\nmodel: org/a\ndata: pairs\ntask: translation\nprune: {solver: sparsegpt, sparsity: 0.5}\n"
    text += "pretrain: {steps: 1, lr: 1}\n"
    assert [cell.label for cell in registry.cells(text=text)] == ["dense", "one_shot", "pretrained"]


def test_a_chain_of_pretrained_cells_leaves_the_tuning_out(registry):
    chain = ("grid:", "baselines: [pretrained]\nchain: prune.sparsity\ngrid:")
    found = {cell.label: cell for cell in registry.cells(PRETRAIN, chain)}
    before = found["0.75/ce"].previous
    assert before.label == "0.5/ce" and before.settings["tune"] is None and before.settings["pretrain"]["steps"] == 4
    assert found["0.75/pretrained"].previous is found["0.5/pretrained"]
    assert found["0.5/ce"].previous is None and found["0.5/ce"].settings["tune"] is not None


def test_a_chain_goes_on_from_tuning_where_only_one_cell_pretrains(registry):
    """Sparse Llama's gradual transfer: the foundation is tuned, pruned further and tuned again."""
    chain = "baselines: [pretrained]\nchain: prune.sparsity\n"
    for at, which in ((0.75, ["0.5/pretrained"]), (0.5, [])):
        case = f"cases: [{{when: {{prune.sparsity: [{at}]}}, set: {{pretrain: null}}}}]\n"
        found = {cell.label: cell for cell in registry.cells(PRETRAIN, ("grid:", f"{chain}{case}grid:"))}
        before = found["0.75/ce"].previous
        assert before is found["0.5/ce"] and before.settings["tune"] is not None
        assert [label for label in found if label.endswith("/pretrained")] == which


def test_sparse_pretraining_needs_a_pruned_model(registry):
    found = registry.one(*NO_TUNE, ("{solver: sparsegpt}", "null"), ("grid:", "pretrain: {steps: 1, lr: 1}\ngrid:"),
                         ("prune.sparsity: [0.5, 0.75]", "pretrain.lr: [1, 2]"))  # fmt: skip
    assert "pretrain trains a pruned model" in found[1].what


def test_a_checked_entry_is_not_expanded_again(registry, monkeypatch):
    entry = registry.read()
    monkeypatch.setattr(grid, "expand", lambda _: pytest.fail("expanded again"))
    assert grid.cells(entry) is grid.cells(entry)
