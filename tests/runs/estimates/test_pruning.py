"""Estimates: shapes from headers alone, growth in the right order, words where nothing is known, no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from harness import models, rooms
from harness.problems import Problem
from harness.runs import estimates, shapes, speed
from harness.runs.estimates import figures, pruning
from harness.runs.keys import Stage
from harness.sources import Source
from harness.spec.sections import Prune

TEXTS = ["What is 3 plus 4? 7", "one two three four five six"] * 3
FAST = speed.Speed(product=1e11, sort=5e7)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """By family: the folder of a tiny model."""
    made = {}
    for family in ("llama", "mpt", "t5", "whisper"):
        made[family] = tmp_path_factory.mktemp(family)
        models.save(*rooms.load("model", family).tiny(TEXTS, seed=0), made[family])
    return made


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A processor of known speed, and no GPU."""
    monkeypatch.setattr(pruning, "speed", lambda: FAST)
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")


def options(**section):
    given = {"data": "prose", "task": "language_modelling:length=128", "sparsity": 0.5, **section}
    return Prune.model_validate(given).model_dump(mode="json")


def source(folder):
    return Source("folder", "it", "sha256:0", folder)


def take(folder, **section):
    return pruning.estimate(options(**section), source(folder))


@pytest.mark.parametrize("family", ["llama", "mpt", "t5", "whisper"])
def test_the_layers_are_those_that_pruning_finds(folders, family):
    found = shapes.read(folders[family])
    model = models.load(folders[family])
    blocks = models.blocks(model)
    expected = {each.name: tuple(each.module.weight.shape) for block in blocks for each in block.linears}
    assert {layer.name: (layer.out, layer.columns) for layer in found.layers} == expected
    assert list(found.blocks) == sorted(block.name for block in blocks) and set(found.blocks) == {
        b.name for b in blocks
    }
    assert found.stored == 4 * found.parameters
    # transformers counts what the embeddings are tied to once, and so does a file
    assert found.parameters == pytest.approx(sum(p.numel() for p in model.parameters()), rel=0.02)


def test_layers_that_read_one_input_share_its_name(folders):
    first = shapes.read(folders["llama"]).blocks["model.layers.0"]
    reads = {layer.name.rpartition(".")[2]: layer.reads for layer in first}
    assert reads["q_proj"] == reads["k_proj"] == reads["v_proj"] and reads["gate_proj"] == reads["up_proj"]
    assert len(set(reads.values())) == 4


def test_blocks_come_in_the_order_of_their_numbers(tmp_path):
    tensors = {f"h.{i}.fc.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} for i in (10, 9, 2)}
    head = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    (tmp_path / "config.json").write_text("{}")
    assert list(shapes.read(tmp_path).blocks) == ["h.2", "h.9", "h.10"]


def test_weights_in_several_files_are_read_together(folders, tmp_path):
    model = models.load(folders["llama"])
    model.save_pretrained(tmp_path, max_shard_size="300KB")
    assert not (tmp_path / "model.safetensors").exists()
    assert shapes.read(tmp_path) == shapes.read(folders["llama"])


@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0\0\0\0\0nope!", b"\xff" * 16])
def test_a_file_that_is_no_safetensors_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(Problem, match="this is no safetensors file") as caught:
        shapes.read(tmp_path)
    assert caught.value.where == str(tmp_path / "model.safetensors")
    assert str(take(tmp_path, criterion="magnitude")).startswith("unknown: this is no safetensors file")


def test_what_costs_more_is_estimated_longer(folders):
    def seconds(**section):
        return take(folders["llama"], **{"samples": 4096, **section}).seconds

    magnitude, wanda, sparsegpt = (
        seconds(criterion="magnitude"),
        seconds(criterion="wanda"),
        seconds(solver="sparsegpt"),
    )
    assert magnitude < wanda < sparsegpt
    assert seconds(criterion="gradient") > wanda
    assert seconds(criterion="wanda", allocation="owl") > wanda
    assert seconds(criterion="magnitude", allocation="alphapruning") > magnitude
    assert seconds(criterion="wanda", ramp="cubic") > 2 * wanda - figures.START - 1
    assert seconds(criterion="wanda", skip=["*.0.*", "*.1.*"]) < wanda


def test_passes_grow_with_the_samples_and_attention_with_the_square_of_the_length(folders):
    few, many, most = (take(folders["mpt"], criterion="wanda", samples=n).seconds for n in (1000, 2000, 3000))
    assert many - few == pytest.approx(most - many) and many > few
    short, long = (
        take(folders["mpt"], criterion="wanda", task=f"language_modelling:length={n}", samples=10**6 // n).seconds
        for n in (500, 1000)
    )
    assert long > short


def test_memory_is_of_weights_states_and_statistics(folders):
    base = take(folders["llama"], criterion="wanda", samples=1)
    assert base.memory > figures.PROCESS
    states = take(folders["llama"], criterion="wanda", samples=100_001).memory
    more = take(folders["llama"], criterion="wanda", samples=200_001).memory
    assert more - states == 100_000 * 128 * 128 * 4  # samples * length * width * float32
    half = take(folders["llama"], criterion="wanda", samples=200_001, dtype="bfloat16").memory
    assert half < 0.6 * more


def memory(folder, **section):
    return take(folder, samples=64, batch_size=16, **section).memory


def test_gradients_stay_and_their_backward_keeps_every_layers_inputs_and_outputs_and_logits(folders):
    """A batch for the mean gradient, one sequence for its norm; and every weight's gradient during the walk."""
    model = shapes.read(folders["llama"])
    prunable = sum(layer.out * layer.columns for layer in model.layers)
    sixteen, one = (memory(folders["llama"], criterion=name) for name in ("gradient", "gblm"))
    passed = sum({layer.reads: layer.columns for layer in model.layers}.values())
    passed += sum(layer.out for layer in model.layers)
    hidden, vocabulary = model.config["hidden_size"], model.config["vocab_size"]
    token = 4 * passed + 12 * hidden * len(model.blocks) + 12 * vocabulary
    fixed = figures.PROCESS + 4 * model.parameters + prunable / 8 + 4 * prunable
    assert sixteen == pytest.approx(fixed + 16 * 128 * token + 4 * max(e.out * e.columns for e in model.layers))
    assert one < sixteen - 10 * 128 * token
    small = take(folders["llama"], criterion="gradient", samples=8, batch_size=16).memory
    assert sixteen - small == 8 * 128 * token, "no batch is larger than the samples"
    many = {"samples": 10**5, "batch_size": 1}
    walked = (take(folders["llama"], criterion=name, **many).memory for name in ("wanda", "gblm"))
    wanda, gblm = walked
    assert gblm - wanda == 4 * prunable
    half = take(folders["llama"], criterion="gradient", samples=10**4, batch_size=10**4, dtype="bfloat16").memory
    assert half < 0.8 * take(folders["llama"], criterion="gradient", samples=10**4, batch_size=10**4).memory


def test_a_trial_holds_the_layers_twice_and_a_held_out_batchs_logits(folders):
    model = shapes.read(folders["llama"])
    prunable = sum(layer.out * layer.columns for layer in model.layers)
    many = {"samples": 10**5, "batch_size": 1, "criterion": "wanda"}
    plain, searched = (take(folders["llama"], **many, allocation=name).memory for name in ("uniform", "atp_search"))
    assert searched - plain == 4 * prunable
    short, long = (
        take(folders["llama"], samples=8, batch_size=64, criterion="magnitude", allocation="atp_search", **task).memory
        for task in (
            {"search_task": "language_modelling:length=1000"},
            {"search_task": "language_modelling:length=2000"},
        )
    )
    assert long - short >= 64 * 1000 * 8 * model.config["vocab_size"]


def test_kernels_take_the_hidden_states_once_more_in_float32(folders):
    many = {"samples": 10**5, "batch_size": 1, "criterion": "wanda"}
    plain, rmi = (take(folders["llama"], **many, allocation=name).memory for name in ("uniform", "rmi"))
    hidden = shapes.read(folders["llama"]).config["hidden_size"]
    assert rmi - plain == pytest.approx(4 * 128 * 10**5 * hidden, rel=0.01)


def test_gram_matrices_of_all_blocks_wait_for_the_scores_on_the_cpu(monkeypatch, tmp_path):
    """Of blocks so many that their matrices outweigh one block's work."""
    wide, blocks = 512, 64
    tensors, at = {}, 0
    for number in range(blocks):
        size = 4 * 16 * wide
        tensors[f"h.{number}.fc.weight"] = {"dtype": "F32", "shape": [16, wide], "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(tensors).encode()
    (tmp_path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    (tmp_path / "config.json").write_text("{}")
    how = {"samples": 8, "criterion": "sparsegpt"}
    plain, scored = (take(tmp_path, **how, allocation=name).memory for name in ("uniform", "global_threshold"))
    assert scored - plain == 4 * blocks * wide**2
    assert take(tmp_path, samples=8, criterion="wanda", allocation="global_threshold").memory <= plain
    monkeypatch.setenv("HARNESS_DEVICE", "cuda:0")
    assert take(tmp_path, **how, allocation="global_threshold").memory < scored - plain


@pytest.mark.parametrize(
    ("data", "column", "task"),
    [("jsonl", "input_ids", "language_modelling"), ("jsonl_pairs", "source_ids", "text_to_text")],
)
def test_rows_of_ids_say_how_long_they_are(folders, tmp_path, data, column, task):
    path = tmp_path / "ids.jsonl"
    path.write_text(json.dumps({column: [1] * 256, "target_ids": [1]}) + "\n")
    ids = take(folders["llama"], criterion="wanda", data=f"{data}:path={path}", task=task, samples=10**5)
    assert ids == take(folders["llama"], criterion="wanda", task="language_modelling:length=256", samples=10**5)


def test_a_method_that_looks_at_no_data_costs_nothing_for_samples(folders):
    one, many = (take(folders["llama"], criterion="magnitude", samples=n) for n in (1, 10**6))
    assert one == many and one.seconds < figures.START + 1


def test_a_search_is_at_least_and_a_gpu_is_unknown(folders, monkeypatch):
    assert str(take(folders["llama"], criterion="wanda", allocation="atp_search")).startswith("at least ")
    assert str(take(folders["llama"], criterion="wanda")).startswith("about 8.0 s, ")
    monkeypatch.setenv("HARNESS_DEVICE", "cuda:1")
    found = take(folders["llama"], criterion="wanda")
    assert found.seconds is None and found.memory and "time unknown: on a GPU" in str(found)


def test_a_model_that_is_not_here_is_unknown():
    hub = Source("hub", "org/absent", "0" * 40)
    assert str(pruning.estimate(options(criterion="wanda"), hub)) == (
        "unknown: the model is on the hub, and its shapes are not here"
    )


def test_a_stage_is_estimated_by_the_model_its_weights_began_as(folders):
    resolved = options(criterion="wanda")
    direct = Stage("prune", resolved, sources={"model": source(folders["llama"])})
    prepared = Stage("prepare", {}, sources={"model": source(folders["llama"])})
    chained = Stage("prune", resolved, {"model": Stage("tune", {}, {"model": Stage("prune", {}, {"model": prepared})})})
    expected = pruning.estimate(resolved, source(folders["llama"]))
    assert estimates.of_stage(direct) == estimates.of_stage(chained) == expected
    assert estimates.of_stage(Stage("prune", resolved, {"model": Stage("prepare", {"model": "tiny/llama"})})) is None
    idle = {key: resolved[key] for key in ("samples", "data", "task", "batch_size")}
    rest = {key: value for key, value in resolved.items() if key not in idle}
    assert estimates.of_stage(replace(direct, options=rest, handling=idle)) == expected


def test_the_speed_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    measured = []
    monkeypatch.setattr(speed, "measure", lambda: measured.append(1) or FAST)
    for _ in range(2):
        speed.speed.cache_clear()
        assert speed.speed() == FAST
    assert len(measured) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "63")
    speed.speed.cache_clear()
    assert speed.speed() == FAST and len(measured) == 2, "another number of threads has another speed"
    (tmp_path / "cache" / "speed.json").write_text('{"')
    speed.speed.cache_clear()
    assert speed.speed() == FAST and len(measured) == 3, "a damaged memory is measured anew"
    speed.speed.cache_clear()


def test_the_measured_speed_is_a_machines():
    found = speed.measure()
    assert 1e8 < found.product < 1e14 and 1e5 < found.sort < 1e11


def test_estimating_imports_no_torch_and_numpy_only_to_measure(folders, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom harness.runs.estimates import pruning\n"
        "from harness.sources import Source\n"
        "from harness.spec.sections import Prune\n"
        "section = Prune.model_validate({'data': 'prose', 'task': 'language_modelling', 'solver': 'sparsegpt',"
        " 'sparsity': 0.5}).model_dump(mode='json')\n"
        "print(pruning.estimate(section, Source('folder', 'it', '', Path(sys.argv[1]))))\n"
        "heavy = {'torch', 'transformers', 'datasets', 'safetensors', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "HARNESS_CACHE": str(tmp_path), "HARNESS_DEVICE": "cpu"}
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(folders["llama"])],
            capture_output=True, text=True, check=True, env=environment,
        )  # fmt: skip
        said.append(done.stdout.splitlines())
    assert said[0][0] == said[1][0] and said[0][0].startswith("about ")
    assert [lines[1] for lines in said] == ["['numpy']", "[]"]
