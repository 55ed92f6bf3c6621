"""Tuning goes on from whatever pruning left: from masks that DSnoT refined, and from the model before fine-tuning."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from harness import models
from harness.pruning import keep
from harness.runs.events import CellDone, CellFailed
from harness.runs.execute import execute
from harness.runs.plan import plan
from harness.runs.store import Store
from harness.spec import entry as spec
from harness.spec.grid import cells

ROOT = Path(__file__).parents[2] / "experiments"
SHORT = ("prepare.steps=2", "prepare.warmup=0", "prune.samples=8", "tune.steps=2", "tune.warmup=0", "tune.batch_size=4")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs some cells of an entry at scale tiny and returns their folders by label and stage."""
    store = Store(tmp_path_factory.mktemp("artifacts"))

    def run(name, labels, *set):
        entry = spec.read(name, "tiny", root=ROOT, set=(*SHORT, *set))
        wanted = [cell for cell in cells(entry) if cell.label in labels]
        with contextlib.closing(execute(plan(wanted, store), store)) as events:
            ended = [event for event in events if isinstance(event, CellDone | CellFailed)]
        assert [event.message for event in ended if isinstance(event, CellFailed)] == []
        return {event.cell.label: event.folders for event in ended}

    return run


def weights(folder):
    model = models.load(folder)
    return {linear.name: linear.module.weight.detach() for block in models.blocks(model) for linear in block.linears}


@pytest.mark.parametrize("method", ["masked", "sparse_peft"])
def test_a_mask_that_dsnot_refined_is_kept_while_it_is_tuned(run, method):
    found = run(
        "dsnot/tuning", [f"0.7/{mask}/{method}" for mask in ("wanda", "wanda+dsnot")], "evaluate.perplexity.limit=8"
    )
    start, folders = (found[f"0.7/{mask}/{method}"] for mask in ("wanda", "wanda+dsnot"))
    before, refined, after = (keep.load(each) for each in (start["prune"], folders["prune"], folders["tune"]))
    assert any(not torch.equal(before[name], mask) for name, mask in refined.items())
    pruned, tuned = weights(folders["prune"]), weights(folders["tune"])
    for name, mask in refined.items():
        assert torch.equal(after[name], mask) and mask.float().mean() == pytest.approx(0.3, abs=0.01)
        assert not tuned[name][~mask].any() and not torch.equal(tuned[name], pruned[name])


def test_what_is_pruned_may_be_the_model_as_it_came_with_the_fine_tuned_one_as_teacher(run):
    base = run("sparse_llama/gsm8k", ["dense"], "evaluate.exact_match.limit=2", "prepare.steps=4")["dense"]["prepare"]
    changes = (
        f"model={base}",
        "prune.start=base",
        "prune.solver=null",
        "prune.criterion=magnitude",
        "pretrain.steps=2",
    )
    limit = ("pretrain.batch_size=4", "evaluate.exact_match.limit=2")
    folders = run("sparse_llama/gsm8k", ["0.5/bf16"], *changes, *limit)["0.5/bf16"]
    came, prepared, pruned = (weights(each) for each in (base, folders["prepare"], folders["prune"]))
    masks = keep.load(folders["prune"])
    assert masks and all(torch.equal(pruned[name], came[name] * mask) for name, mask in masks.items())
    assert not any(torch.equal(came[name], prepared[name]) for name in masks)
    for stage in ("pretrain", "tune"):
        trained = weights(folders[stage])
        assert all(not trained[name][~mask].any() for name, mask in masks.items())
        assert not any(torch.equal(trained[name], pruned[name]) for name in masks)
