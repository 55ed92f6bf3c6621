"""Estimates of fine-tunings: bytes that follow from counts, growth in the right order, words where nothing is known."""

from __future__ import annotations

import json

import pytest

from harness.runs import shapes, speed
from harness.runs.estimates import training
from harness.runs.processes import Processes
from harness.sources import Source
from harness.spec.sections import Prepare, Prune, Tune

LLAMA_7B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
PARAMETERS = 6_738_415_616
"""Of LLaMA-7B (arXiv:2302.13971)."""


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A processor of known speed, and no GPU."""
    monkeypatch.setattr(training, "speed", lambda: speed.Speed(product=1e11, sort=5e7))
    monkeypatch.setenv("HARNESS_DEVICE", "cpu")


@pytest.fixture
def source(tmp_path):
    """LLaMA-7B without its weights."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_7B))
    return Source("folder", "it", "sha256:0", tmp_path)


BASE = {"data": "prose", "task": "language_modelling:length=512", "lr": 1e-5, "batch_size": 16, "accumulation": 16}


def prepare(**section):
    return Prepare.model_validate({**BASE, "steps": 10, **section}).model_dump(mode="json")


def tune(**section):
    return Tune.model_validate({**BASE, "steps": 10, **section}).model_dump(mode="json")


def test_shapes_follow_from_a_llama_config(source):
    found = shapes.read(source.path)
    assert found.parameters == PARAMETERS and len(found.blocks) == 32 and len(found.layers) == 7 * 32
    assert found.stored == 2 * PARAMETERS


def test_seven_billion_weights_need_sixteen_bytes_each_and_their_activations(source):
    memory = training.estimate(prepare(), source).memory
    fixed = 16 * PARAMETERS
    assert 107e9 < fixed < 108e9
    assert fixed + 5e9 < memory < fixed + 15e9  # 512 tokens
    assert training.estimate(prepare(accumulation=8), source).memory > memory + 4e9
    assert training.estimate(prepare(recompute=True), source).memory < memory - 4e9


def test_a_teacher_masks_and_adapters_are_counted(source):
    plain = training.estimate(tune(loss="cross_entropy"), source).memory
    taught = training.estimate(tune(loss="cross_entropy + squarehead"), source).memory
    adapter = training.estimate(tune(method="lora:rank=16", loss="cross_entropy"), source).memory
    prunable = 32 * 202_375_168
    assert plain == training.estimate(prepare(), source).memory + prunable / 8  # masks, in bits
    assert plain + 4 * PARAMETERS < taught < plain + 4 * PARAMETERS + 5e9
    assert plain - 12 * PARAMETERS < adapter < plain - 11.8 * PARAMETERS
    rank = training.trained(tune(method="lora:rank=16", loss="cross_entropy"), shapes.read(source.path))
    assert rank.more == 16 * 32 * (4 * 2 * 4096 + 3 * (4096 + 11008)) and not rank.weights


def test_fsdp_shares_what_ddp_repeats(source):
    one, ddp, fsdp = (
        training.estimate(prepare(), source, Processes(count, way)).memory
        for count, way in ((1, "ddp"), (8, "ddp"), (8, "fsdp"))
    )
    assert fsdp < one / 3 and ddp > one


def test_a_ramp_needs_a_second_weight_of_every_layer_and_a_walk(source, monkeypatch):
    monkeypatch.setenv("HARNESS_DEVICE", "cuda")
    calibration = {"data": "prose", "task": "language_modelling:length=2048", "samples": 128, "batch_size": 1}
    prune = Prune.model_validate({**calibration, "sparsity": 0.6, "criterion": "wanda"}).model_dump(mode="json")
    prunable, states, block = 32 * 202_375_168, 128 * 2048 * 4096 * 4, 202_375_168

    def memory(count, way, **section):
        options = {**tune(method="losa:rank=8", loss="cross_entropy", **section), "prune": prune}
        return training.estimate(options, source, Processes(count, way)).memory

    alone, shared = memory(1, "ddp", ramp="cubic"), memory(2, "fsdp", ramp="cubic")
    assert alone > memory(1, "ddp") + 4e9  # the paused passes and a second weight are more than a step's activations
    held = 4 * PARAMETERS + prunable / 8  # weights and masks
    assert held + 4 * prunable + states < alone < held + 4 * prunable + states + 3e9
    rest = PARAMETERS - prunable
    held = 4 * PARAMETERS / 2 + prunable / 8 + 2 * 4 * (block + rest)
    assert held + 4 * prunable / 2 + states < shared < held + 4 * prunable / 2 + states + 3e9
    assert shared < 0.65 * memory(2, "ddp", ramp="cubic")


@pytest.mark.parametrize(
    ("method", "where", "whole"),
    [
        ("lora:rank=8", "cuda", False),
        ("lora:rank=8", "cpu", True),
        ("lors:rank=8", "cuda", True),
        ("lors:rank=8,init=kaiming", "cuda", False),
    ],
)
def test_what_is_shared_out_is_whole_at_first_where_something_is_computed_with_it(
    source, monkeypatch, method, where, whole
):
    monkeypatch.setenv("HARNESS_DEVICE", where)
    options = tune(method=method, loss="cross_entropy", batch_size=64, accumulation=1, recompute=True)
    many = training.estimate(options, source, Processes(64, "fsdp")).memory
    if whole:
        assert many == 4 * PARAMETERS + (training.PROCESS if where == "cpu" else 0)
    else:
        assert many < 2 * PARAMETERS


def test_time_follows_steps_and_what_is_computed(source):
    def seconds(**section):
        return training.estimate(prepare(**section), source).seconds

    ten, twenty = seconds(), seconds(steps=20)
    assert twenty - ten == pytest.approx(ten - training.estimate(prepare(steps=1), source).seconds, rel=0.2)
    assert seconds(recompute=True) > 1.2 * ten
    assert seconds(steps=None, tokens=10 * 16 * 512) == ten
    assert training.estimate(tune(method="lora", loss="cross_entropy"), source).seconds < ten


def test_tokens_that_are_packed_into_a_file_take_disk(source):
    packed = {"task": "language_modelling:length=512,cut=packed"}
    run = training.estimate(prepare(**packed), source)
    assert run.disk == 2 * 10 * 16 * 512 and training.estimate(prepare(), source).disk == 0
    billions = training.estimate(prepare(**packed, steps=None, tokens=45 * 10**9), source)
    assert str(billions).endswith(", 83.8 GiB of tokens on disk")
    assert training.estimate(prepare(**packed, steps=None, epochs=1.0), source).disk == 0
    (source.path / "config.json").write_text(json.dumps({**LLAMA_7B, "vocab_size": 128256}))
    assert training.estimate(prepare(**packed), source).disk == 2 * run.disk


def test_what_cannot_be_known_is_said(source, monkeypatch, tmp_path):
    epochs = training.estimate(prepare(steps=None, epochs=1.0), source)
    assert epochs.seconds is None and epochs.memory and "how many steps" in str(epochs)
    assert "on the hub" in str(training.estimate(prepare(), Source("hub", "org/absent", "0" * 40)))
    (tmp_path / "config.json").write_text('{"model_type": "mpt"}')
    assert "no safetensors" in str(training.estimate(prepare(), source))
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_7B))
    monkeypatch.setenv("HARNESS_DEVICE", "cuda")
    on_gpu = training.estimate(prepare(), source)
    assert on_gpu.seconds is None and on_gpu.memory
