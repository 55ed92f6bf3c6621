from __future__ import annotations

import json

import pytest
import torch

from harness import models, rooms
from harness.bench import cost, tune_lanes, tune_table
from harness.bench import tune as bench
from harness.problems import Problem

TEXTS = ["one two three four five six seven eight"] * 3
NAMES = ("lora", "peft", "naive", "lors", "spp", "sparse_peft", "masked", "dense")
TASK = tune_lanes.Task(tokens=24, rank=4, sparsity=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a tiny llama."""
    folder = tmp_path_factory.mktemp("models") / "llama"
    models.save(*rooms.load("model", "llama").tiny(TEXTS, seed=0), folder)
    return folder


@pytest.fixture(scope="module")
def raced(folder):
    """The pruned model, its masks, and the rows of two rounds of every lane on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DEVICE", "cpu")
        model = models.load(folder)
        keeps = tune_lanes.prune(model, 0.5)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        told = []
        lanes = list(tune_lanes.lanes(model, keeps, NAMES, TASK))
        rows = bench.race(lanes, 2, lambda name, seconds: told.append(name))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters()), "lanes share what they freeze"
    return keeps, rows, told


def by_name(rows):
    return {row["name"]: row for row in rows}


def test_rounds_are_interleaved_and_begin_with_another_lane(raced):
    _, rows, told = raced
    names = [*NAMES, "squarehead", "teacher forward", "lors start: a gradient", "lors start: directions"]
    assert [row["name"] for row in rows] == names
    assert told == [*names, *names[1:], names[0]]
    assert all(len(row["runs"]) == 2 and row["seconds"]["min"] == min(row["runs"]) for row in rows)


def test_what_is_counted_is_what_the_methods_are_made_of(raced):
    keeps, rows, _ = raced
    row, weights = by_name(rows), sum(keep.numel() for keep in keeps.values())
    tokens, rank = TASK.tokens, TASK.rank
    first = [keeps[f"model.layers.0.self_attn.{name}_proj"] for name in "qkv"]  # their inputs get no gradient
    assert row["lora"]["saved_bytes"] - row["lors"]["saved_bytes"] == 4 * tokens * rank * len(keeps)
    assert row["sparse_peft"]["saved_bytes"] == row["lors"]["saved_bytes"] == row["spp"]["saved_bytes"]
    assert row["naive"]["saved_bytes"] - row["lors"]["saved_bytes"] == 4 * (weights - sum(k.numel() for k in first))
    assert row["lora"]["flops"] == row["peft"]["flops"]
    more = 4 * rank * weights - 2 * tokens * rank * sum(sum(keep.shape) for keep in keeps.values())
    more -= sum(2 * rank * keep.numel() - 2 * tokens * rank * keep.shape[1] for keep in first)
    assert row["lors"]["flops"] == row["lora"]["flops"] + more
    assert row["dense"]["flops"] == row["masked"]["flops"] > row["lora"]["flops"]
    assert row["dense"]["held_bytes"] > 2 * row["lora"]["held_bytes"]
    assert all(r["peak_bytes"] >= r["held_bytes"] for r in rows)
    student = row["masked"]["flops"] + row["teacher forward"]["flops"]
    assert row["squarehead"]["flops"] == student and row["squarehead"]["held_bytes"] == row["masked"]["held_bytes"]
    assert row["lors start: a gradient"]["flops"] > row["dense"]["flops"] / 2
    assert row["lors start: directions"]["held_bytes"] == 4 * weights


def test_the_most_of_a_method_that_moves_is_of_a_whole_interval(folder, monkeypatch):
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    model = models.load(folder)
    keeps = tune_lanes.prune(model, 0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = next(lane for lane in tune_lanes.lanes(model, keeps, ["seft"], TASK) if lane.name == "seft")
    taken, counted = [], cost.count
    monkeypatch.setattr(cost, "count", lambda *given: taken.append(counted(*given)) or taken[-1])
    (row,) = bench.race([found], 1, lambda *_: None)
    numbers = sum(TASK.rank * sum(keep.shape) for keep in keeps.values())
    assert row["index_bytes"] == 4 * numbers and len(taken) == tune_lanes.INTERVAL + tune_lanes.WINDOW
    peaks = [each.peak_bytes for each in taken]
    assert row["peak_bytes"] == max(peaks) == peaks[tune_lanes.INTERVAL - 1] > peaks[1], (
        "the second naming, with moments"
    )
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters()), "a round prunes its own copy"


@pytest.mark.parametrize("name", ["lora", "lors", "seft"])
def test_blocks_are_compiled_where_that_is_asked_for_and_compute_in_bf16(folder, monkeypatch, name):
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    made = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: made.append(type(module).__name__))
    model = models.load(folder)
    keeps = tune_lanes.prune(model, 0.5)
    task = tune_lanes.Task(tokens=24, rank=4, sparsity=0.5, precision="bf16")
    (lane, *_) = tune_lanes.lanes(model, keeps, [name], task)
    types = []
    lane.blocks[0].mlp.down_proj.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
    bench.race([lane], 1, lambda *_: None, compiled=True)
    assert made == ["LlamaDecoderLayer"] * len(lane.blocks) and set(types) == {torch.bfloat16}


def test_a_block_has_the_widths_of_the_7b_model():
    with torch.device("meta"):
        model = bench.block()
    shapes = {tuple(linear.module.weight.shape) for part in models.blocks(model) for linear in part.linears}
    assert shapes == {(4096, 4096), (11008, 4096), (4096, 11008)} and len(models.blocks(model)) == 1


def test_the_command_writes_record_and_table(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")
    given = {"tokens": 8, "rank": 2, "sparsity": 0.5, "repeats": 1, "out": tmp_path / "it.json"}
    bench.command([str(folder)], ["lora", "lors"], **given)
    said = json.loads((tmp_path / "it.json").read_text())
    assert said["methods"] == {"lora": "lora:rank=2,alpha=2", "lors": "lors:rank=2,alpha=2,init=kaiming"}
    assert (said["precision"], said["compiled"]) == ("fp32", False)
    assert (tmp_path / "it.md").read_text() == tune_table.table(said) and "lors" in capsys.readouterr().out
    assert str(folder.parent) not in json.dumps(said)


@pytest.mark.parametrize(
    ("names", "words"), [(["lora", "lorz"], "did you mean 'lors'"), (["lors"], "our lora"), (["pefd"], "'peft'")]
)
def test_a_mistake_is_told_before_anything_runs(folder, tmp_path, names, words):
    with pytest.raises(Problem) as caught:
        bench.command([str(folder)], names, tokens=8, rank=2, sparsity=0.5, repeats=1, out=tmp_path / "it.json")
    assert words in str(caught.value) and not (tmp_path / "it.json").exists()
