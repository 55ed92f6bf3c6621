"""The quantisation stage: a folder that plain transformers loads, whose codes are its weights, that runs W8A8 here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from harness import models, rooms
from harness.problems import Problem
from harness.pruning import keep
from harness.quantization import codes
from harness.quantization.activations import Dynamic, Static
from harness.runs.job import Job
from harness.spec.sections import Prune, Quantize
from harness.stages import prune, quantize
from harness.stages._load import verified

TEXTS = ["translate English to German: one two three", "eins zwei drei", "What is 3 plus 4? 7"] * 3
SETTINGS = {
    "t5": {"data": "cldr_pairs:size=500", "task": "translation"},
    "llama": {"data": "arithmetic:size=60", "task": "reasoning"},
    "mpt": {"data": "arithmetic:size=60", "task": "reasoning"},
    "opt": {"data": "arithmetic:size=60", "task": "reasoning"},
    "whisper": {"data": "spoken", "task": "speech"},
}
RECIPE = {"rounding": "gptq", "activations": "dynamic", "smooth": 0.5}


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """By family: the folder of its dense tiny model, and of that pruned to 50%."""
    made = {}
    for family in SETTINGS:
        folder = tmp_path_factory.mktemp(family)
        models.save(*rooms.load("model", family).tiny(TEXTS, seed=0), folder / "dense")
        given = {"criterion": "magnitude", "sparsity": 0.5, **SETTINGS[family]}
        options = Prune.model_validate(given).model_dump(mode="json")
        for name in ("pruned", "scratch"):
            (folder / name).mkdir()
        list(prune.run(Job(options, {"model": folder / "dense"}, folder / "pruned", folder / "scratch")))
        made[family] = folder
    return made


def job(folder: Path, parent: Path, family: str = "llama", **section) -> Job:
    given = {"samples": 8, "batch_size": 4, **SETTINGS[family], **section}
    for name in ("result", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = Quantize.model_validate(given).model_dump(mode="json")
    return Job(options, {"model": parent}, folder / "result", folder / "scratch")


def done(given: Job) -> Path:
    list(quantize.run(given))
    return given.folder


def report(folder: Path) -> dict:
    return json.loads((folder / quantize.FILE).read_text())


def logits(model, seed=0):
    ids = torch.randint(4, 60, (2, 12), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("family", SETTINGS)
def test_the_folder_is_a_plain_model_whose_codes_are_its_weights(tmp_path, parents, family):
    parent = parents[family] / "pruned"
    given = job(tmp_path, parent, family, **RECIPE)
    seen = list(quantize.run(given))
    auto = getattr(transformers, rooms.load("model", family).MODEL)
    plain, keeps, layers = auto.from_pretrained(given.folder), keep.load(given.folder), codes.load(given.folder)
    blocks = models.blocks(plain)
    assert [(p.done, p.total, p.unit) for p in seen] == [(i, len(blocks), "block") for i in range(1, len(blocks) + 1)]
    assert (given.folder / keep.FILE).read_bytes() == (parent / keep.FILE).read_bytes()
    keep.verify(plain, keeps)
    codes.verify(plain, layers)
    stored = load_file(given.folder / codes.FILE)
    for name, row in report(given.folder)["layers"].items():
        weight = plain.get_submodule(name).weight
        assert torch.equal(stored[f"{name}.codes"] * stored[f"{name}.scale"], weight)
        assert row["pruned"] == row["size"] // 2 <= row["zeros"] == row["size"] - int(weight.count_nonzero())
        assert 0 < row["error"] < 0.02 and row["damping"] == 0.01
    overall = report(given.folder)["overall"]
    assert overall["layers"] == len(keeps) == len(layers) and overall["pruned"] == 0.5 <= overall["zeros"] < 0.52
    assert overall["quantised_weights"] == overall["weights"] < overall["bytes"] < 1.1 * overall["weights"]
    assert report(given.folder)["smoothed"] and report(given.folder)["calibration"]["samples"] == 8


@pytest.mark.parametrize("activations", ["none", "dynamic", "static"])
def test_what_the_folder_says_of_activations_is_what_the_harness_runs(tmp_path, parents, activations):
    folder = done(job(tmp_path, parents["llama"] / "pruned", activations=activations))
    ours, plain = verified(folder), models.load(folder)
    exact = logits(models.load(parents["llama"] / "pruned"))
    assert torch.equal(logits(ours), logits(plain)) == (activations == "none")
    most = 0.2 if activations == "static" else 0.02  # the range is that of other texts: what lies beyond is cut off
    assert 0 < (logits(plain) - exact).norm() < 0.02 * exact.norm()
    assert 0 < (logits(ours) - exact).norm() < most * exact.norm()
    kinds = {type(layer.input) for layer in codes.load(folder).values()}
    assert kinds == {{"none": type(None), "dynamic": Dynamic, "static": Static}[activations]}


def test_static_ranges_are_those_of_the_smoothed_inputs(tmp_path, parents):
    parent = parents["llama"] / "pruned"
    plain, smoothed = (
        codes.load(done(job(tmp_path / name, parent, activations="static", smooth=smooth)))
        for name, smooth in (("plain", None), ("smooth", 0.5))
    )
    first = "model.layers.0.self_attn."
    assert plain[first + "q_proj"].input == plain[first + "k_proj"].input != smoothed[first + "q_proj"].input
    down = "model.layers.0.mlp.down_proj"
    assert smoothed[down].input == plain[down].input, "what no norm feeds is not smoothed"


def test_the_recipe_of_sparse_llama(tmp_path, parents):
    section = {"rounding": "gptq", "activations": "static", "smooth": 0.5, "skip": ["*.down_proj"], "embeddings": True}
    parent = parents["llama"] / "pruned"
    folder = done(job(tmp_path, parent, **section))
    layers, before, after = codes.load(folder), models.load(parent), verified(folder)
    assert len(layers) == 6 * 4 + 1 and not any("down_proj" in name for name in layers)
    embedding = layers["model.embed_tokens"]
    assert embedding.input is None and embedding.grid.zero.count_nonzero()
    assert torch.equal(after.lm_head.weight, embedding.grid.decode(embedding.codes)), "the head is tied"
    for index in range(4):
        name = f"model.layers.{index}.mlp.down_proj"
        assert torch.equal(after.get_submodule(name).weight, before.get_submodule(name).weight)
    overall = report(folder)["overall"]
    assert overall["quantised_weights"] == overall["weights"] + embedding.codes.numel()
    assert overall["of_all_weights"] == overall["quantised_weights"] / after.num_parameters()


def test_equal_options_give_equal_bytes(tmp_path, parents):
    folders = [done(job(tmp_path / name, parents["t5"] / "pruned", "t5", **RECIPE)) for name in ("a", "b")]
    files = [[(folder / file).read_bytes() for file in ("model.safetensors", codes.FILE)] for folder in folders]
    assert files[0] == files[1]


def test_rounding_to_nearest_reads_no_data(tmp_path, parents, monkeypatch):
    def refuse(*_):
        raise AssertionError("calibration data was read")

    monkeypatch.setattr(quantize, "calibration", refuse)
    folder = done(job(tmp_path / "dynamic", parents["mpt"] / "pruned", "mpt", activations="dynamic"))
    assert report(folder)["calibration"] is None and report(folder)["smoothed"] == {}
    for index, section in enumerate(({"rounding": "gptq"}, {"smooth": 0.5}, {"activations": "static"})):
        with pytest.raises(AssertionError, match="calibration data was read"):
            done(job(tmp_path / str(index), parents["mpt"] / "pruned", "mpt", **section))


def test_a_dense_model_has_no_mask_and_one_without_a_mask_keeps_its_zeros(tmp_path, parents):
    folder = done(job(tmp_path / "dense", parents["llama"] / "dense"))
    assert not (folder / keep.FILE).exists() and report(folder)["overall"]["pruned"] == 0
    source = tmp_path / "source"
    models.save(models.load(parents["llama"] / "pruned"), models.load_processor(parents["llama"] / "pruned"), source)
    after = done(job(tmp_path / "sparse", source, rounding="gptq", bits=4))
    assert report(after)["overall"]["pruned"] == 0.5
    keep.verify(models.load(after), keep.load(parents["llama"] / "pruned"))


def test_fewer_bits_leave_more_error_and_groups_less(tmp_path, parents):
    cases = {"8": {}, "4": {"bits": 4}, "4 in groups": {"bits": 4, "group": 16}, "3": {"bits": 3}}
    error = {
        name: report(done(job(tmp_path / name, parents["llama"] / "pruned", **case)))["overall"]["error"]
        for name, case in cases.items()
    }
    assert error["8"] < error["4 in groups"] < error["4"] < error["3"]


def test_what_is_quantised_already_is_a_problem(tmp_path, parents):
    folder = done(job(tmp_path / "first", parents["llama"] / "pruned"))
    with pytest.raises(Problem, match="this model is quantised already"):
        done(job(tmp_path / "second", folder))


def test_changed_weights_or_codes_are_refused_when_the_folder_is_read(tmp_path, parents):
    folder = done(job(tmp_path, parents["llama"] / "pruned"))
    file, name = folder / "model.safetensors", "model.layers.2.mlp.up_proj"
    weights = load_file(file)
    place = weights[f"{name}.weight"].nonzero()[0]
    weights[f"{name}.weight"][tuple(place)] *= 1.01
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(Problem, match=f"{name}: 1 of its .* weights are not what codes and scales say"):
        verified(folder)


def test_too_few_examples_and_a_wrong_glob_name_the_section(tmp_path, parents):
    with pytest.raises(Problem, match=r"quantize\.samples: 99 calibration samples are asked for"):
        done(job(tmp_path / "samples", parents["llama"] / "pruned", rounding="gptq", samples=99))
    with pytest.raises(Problem, match=r"quantize\.skip: '\*\.down' matches no layer"):
        done(job(tmp_path / "skip", parents["llama"] / "pruned", skip=["*.down"]))
