from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
import transformers

from harness import models, rooms
from harness.oneoff import prune as oneoff
from harness.problems import Problem
from harness.pruning import keep
from harness.runs.job import Job
from harness.sources import Source
from harness.spec.sections import Prune
from harness.stages import _pruner, evaluate, prune
from harness.stages._load import verified, verify_written

TEXTS = ["translate English to German: one two three", "eins zwei drei", "What is 3 plus 4? 7"] * 3
SETTINGS = {
    "t5": {"data": "cldr_pairs:size=500", "task": "translation"},
    "llama": {"data": "arithmetic:size=60", "task": "reasoning"},
    "mpt": {"data": "arithmetic:size=60", "task": "reasoning"},
    "whisper": {"data": "spoken", "task": "speech"},
}
LAYERS = {"t5": 32, "llama": 28, "mpt": 12, "whisper": 32}


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """By family: the folder of its dense tiny model."""
    made = {}
    for family in SETTINGS:
        made[family] = tmp_path_factory.mktemp(family)
        models.save(*rooms.load("model", family).tiny(TEXTS, seed=0), made[family])
    return made


def job(folder: Path, parent: Path, family: str = "t5", **section) -> Job:
    given = {"samples": 8, "batch_size": 4, **SETTINGS[family], **section}
    for name in ("result", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = Prune.model_validate(given).model_dump(mode="json")
    return Job(options, {"model": parent}, folder / "result", folder / "scratch")


def report(given: Job) -> dict:
    return json.loads((given.folder / "prune.json").read_text())


@pytest.mark.parametrize("family", SETTINGS)
def test_the_folder_is_a_plain_model_with_its_mask_and_report(tmp_path, parents, family):
    given = job(tmp_path, parents[family], family, solver="sparsegpt", sparsity=0.5)
    seen = list(prune.run(given))
    auto = getattr(transformers, rooms.load("model", family).MODEL)
    model, keeps = auto.from_pretrained(given.folder), keep.load(given.folder)
    blocks = models.blocks(model)
    assert [(p.done, p.total, p.unit) for p in seen] == [(i, len(blocks), "block") for i in range(1, len(blocks) + 1)]
    assert seen[-1].values["sparsity"] == keep.sparsity(keeps) == 0.5
    assert len(keeps) == LAYERS[family]
    keep.verify(model, keeps)
    rows = report(given)["layers"]
    assert rows.keys() == keeps.keys()
    for name, row in rows.items():
        weight = model.get_submodule(name).weight
        assert row["zeros"] == int((~keeps[name]).sum()) == row["size"] // 2 == weight.numel() // 2
        assert row["asked"] == row["reached"] == 0.5 and row["damping"] == 0.01 and row["seconds"] >= 0
    assert report(given)["overall"] == {"asked": 0.5, "reached": 0.5}
    spent = report(given)["blocks"]
    assert list(spent) == [block.name for block in blocks]
    assert sum(row["zeros"] for row in spent.values()) == sum(row["zeros"] for row in rows.values())
    assert all(row["seconds"] > 0 and row["peak_memory_bytes"] > 1e6 for row in spent.values())
    dense = models.load(parents[family])
    pruned = {f"{name}.weight" for name in keeps}
    for (name, before), after in zip(dense.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(before, after) == (name not in pruned), name


def test_equal_options_give_equal_bytes_and_the_seed_draws_the_samples(tmp_path, parents):
    folders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        given = job(tmp_path / name, parents["t5"], criterion="wanda", sparsity=0.6, seed=seed)
        list(prune.run(given))
        folders.append(given.folder)
    files = [[(folder / file).read_bytes() for file in ("model.safetensors", keep.FILE)] for folder in folders]
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(("method", "pattern"), [({"criterion": "wanda"}, "2:4"), ({"solver": "sparsegpt"}, "1:4")])
def test_an_nm_pattern_gives_the_sparsity(tmp_path, parents, method, pattern):
    given = job(tmp_path, parents["llama"], "llama", pattern=pattern, **method)
    list(prune.run(given))
    n, m = map(int, pattern.split(":"))
    for mask in keep.load(given.folder).values():
        assert (mask.view(-1, m).sum(1) == n).all()
    assert report(given)["overall"]["reached"] == 1 - n / m


def test_magnitude_reads_no_data(tmp_path, parents, monkeypatch):
    def refuse(*_):
        raise AssertionError("calibration data was read")

    monkeypatch.setattr(_pruner, "calibration", refuse)
    given = job(tmp_path, parents["mpt"], "mpt", criterion="magnitude", sparsity=0.75)
    list(prune.run(given))
    assert report(given)["calibration"] is None and report(given)["overall"]["reached"] == 0.75


def test_along_a_chain_the_mask_is_chosen_anew_and_revived_weights_are_counted(tmp_path, parents):
    first = job(tmp_path / "first", parents["t5"], criterion="magnitude", sparsity=0.5)
    list(prune.run(first))
    second = job(tmp_path / "second", first.folder, solver="sparsegpt", sparsity=0.6)
    list(prune.run(second))
    before, model = keep.load(first.folder), models.load(second.folder)
    alive = sum(int(model.get_submodule(name).weight[~mask].count_nonzero()) for name, mask in before.items())
    share = report(second)["overall"]["revived"]
    assert share == alive / sum(int((~mask).sum()) for mask in before.values()) and 0 < share < 0.2
    assert "revived" not in report(first)["overall"]
    third = job(tmp_path / "third", first.folder, criterion="magnitude", sparsity=0.6)
    list(prune.run(third))
    assert report(third)["overall"]["revived"] == 0


def test_a_parent_whose_zeros_are_lost_is_refused(tmp_path, parents):
    model, processor = models.load(parents["t5"]), models.load_processor(parents["t5"])
    models.save(model, processor, tmp_path / "lost")
    name = models.blocks(model)[0].linears[0].name
    keep.save(tmp_path / "lost", {name: torch.zeros_like(model.get_submodule(name).weight, dtype=torch.bool)})
    given = job(tmp_path, tmp_path / "lost", criterion="magnitude", sparsity=0.6)
    with pytest.raises(Problem, match="pruned weights are not zero"):
        next(prune.run(given))
    with pytest.raises(Problem, match="pruned weights are not zero"):
        next(evaluate.run(Job({}, {"model": tmp_path / "lost"}, tmp_path, tmp_path)))
    assert verified(Source("folder", "t5", "", parents["t5"])).config.model_type == "t5"  # no mask, nothing to verify


def test_crops_are_drawn_and_fit_the_model(tmp_path, parents):
    crops = {"data": "prose", "task": "language_modelling:cut=crops,length=64", "rows": 200}
    given = job(tmp_path, parents["llama"], "llama", criterion="wanda", sparsity=0.5, samples=5, **crops)
    model, processor = models.load(parents["llama"]), models.load_processor(parents["llama"])
    batches = _pruner.calibration(given.options, model, processor)
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(4, 64), (1, 64)]
    again = _pruner.calibration(given.options, model, processor)
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(batches, again, strict=True))
    model.config.max_position_embeddings = 63
    with pytest.raises(Problem, match="the input_ids have 64 tokens; the model's decoder reads up to 63"):
        _pruner.calibration(given.options, model, processor)


def test_too_few_examples_is_a_problem(tmp_path, parents):
    given = job(tmp_path, parents["llama"], "llama", criterion="wanda", sparsity=0.5, samples=61)
    with pytest.raises(Problem, match=r"61 calibration samples are asked for, and .*arithmetic.* has 60 examples"):
        list(prune.run(given))


def test_a_layer_whose_width_does_not_divide_is_named_and_nothing_is_written(tmp_path, parents):
    given = job(tmp_path, parents["t5"], criterion="magnitude", pattern="nm:n=1,m=3")
    with pytest.raises(Problem, match=r"encoder\.block\.0\..*: its 128 inputs do not divide into groups of 3"):
        list(prune.run(given))
    assert not list(given.folder.iterdir())


@pytest.mark.parametrize("family", ["t5", "whisper", "llama"])
@pytest.mark.parametrize(
    "how",
    [
        {"criterion": "wanda", "allocation": "owl"},
        {"criterion": "wanda", "refiner": "dsnot:parts=all,cycles=8", "allocation": "alphapruning"},
        {"criterion": "gradient", "allocation": "global_threshold", "pattern": "unstructured:group=matrix"},
        {
            "criterion": "sparsegpt",
            "refiner": "dsnot:cycles=8",
            "pattern": "mixed_nm:m=8",
            "allocation": "atp:beta=0.02",
        },
        {"solver": "sparsegpt", "allocation": "rmi"},
        {"criterion": "magnitude", "pattern": "block", "allocation": "er"},
        {"criterion": "ria", "allocation": "lamp", "ramp": "cubic:steps=2"},
    ],
    ids=lambda how: ".".join(text.partition(":")[0] for text in how.values()),
)
def test_methods_combine_freely_on_every_family(tmp_path, parents, family, how):
    given = job(tmp_path, parents[family], family, sparsity=0.6, **how)
    seen = list(prune.run(given))
    keeps, blocks = keep.load(given.folder), models.blocks(models.load(given.folder))
    keep.verify(models.load(given.folder), keeps)
    assert seen[-1].done == seen[-1].total == len(blocks) * (2 if "ramp" in how else 1)
    reached = report(given)["overall"]["reached"]
    assert reached == keep.sparsity(keeps) == pytest.approx(0.6, abs=0.005)
    assert reached <= 0.6 + 1e-9 or "mixed_nm" in how["pattern"]  # eighths of the small layers come no nearer
    assert report(given)["method"].keys() >= how.keys()


def test_skipped_layers_are_in_no_mask_and_keep_their_weights(tmp_path, parents):
    given = job(
        tmp_path, parents["llama"], "llama", criterion="wanda", sparsity=0.5, skip=["*.down_proj", "*layers.0.*"]
    )
    list(prune.run(given))
    dense, pruned = models.load(parents["llama"]), models.load(given.folder)
    linears = [linear.name for block in models.blocks(dense) for linear in block.linears]
    masked = [name for name in linears if not name.endswith("down_proj") and "layers.0." not in name]
    assert list(keep.load(given.folder)) == masked
    for name in linears:
        before, after = (model.get_submodule(name).weight for model in (dense, pruned))
        assert torch.equal(before, after) == (name not in masked), name
    assert report(given)["overall"] == {"asked": 0.5, "reached": 0.5}
    assert report(given)["blocks"]["model.layers.0"]["reached"] is None


def test_a_search_tries_rates_on_its_own_split_and_takes_the_best(tmp_path, parents):
    given = job(tmp_path, parents["llama"], "llama", criterion="wanda", sparsity=0.6, allocation="atp_search:step=0.05")
    seen = list(prune.run(given))
    trials, rows = report(given)["trials"], report(given)["layers"]
    assert len(trials) > 2 and sum("trial" in each.values for each in seen) == len(trials)
    spent = [trial["seconds"] for trial in trials]
    assert min(spent) > 0 and sum(spent) <= report(given)["before"]["seconds"]
    best = min(trials, key=lambda trial: trial["loss"])
    assert {name: row["asked"] for name, row in rows.items()} == best["rates"]
    again = job(tmp_path / "again", parents["llama"], "llama", criterion="wanda", sparsity=0.6, search_limit=4)
    held_out = _pruner.held_out_batches(
        again.options, models.load(parents["llama"]), models.load_processor(parents["llama"])
    )
    assert [len(batch["input_ids"]) for batch in held_out] == [4]


def test_trials_tell_the_rates_that_were_tried(tmp_path, parents, monkeypatch):
    tried = []

    def trial(setup, rates, held_out):
        tried.append(dict(rates))
        return 1 / len(tried)

    monkeypatch.setattr(_pruner, "trial", trial)
    given = job(
        *(tmp_path, parents["llama"], "llama"),
        **{"criterion": "wanda", "sparsity": 0.5, "pattern": "mixed_nm:m=8", "allocation": "atp_search:trials=2"},
    )
    list(prune.run(given))
    assert [trial["rates"] for trial in report(given)["trials"]] == tried
    assert all(rate * 8 == round(rate * 8) for rates in tried for rate in rates.values())


def test_the_time_and_memory_before_the_first_block_are_told(tmp_path, parents, monkeypatch):
    real = _pruner.gradients

    def slow(*given):
        time.sleep(0.3)
        return real(*given)

    monkeypatch.setattr(_pruner, "gradients", slow)
    given = job(tmp_path, parents["llama"], "llama", criterion="gradient", sparsity=0.5)
    list(prune.run(given))
    before = report(given)["before"]
    assert 0.3 <= before["seconds"] < 30 and before["peak_memory_bytes"] > 1e6
    assert all(block["seconds"] < before["seconds"] for block in report(given)["blocks"].values())


CROPS = "language_modelling:cut=crops,length=64"


def test_a_search_cuts_its_rows_by_its_own_task(parents, tmp_path):
    model, processor = models.load(parents["llama"]), models.load_processor(parents["llama"])
    own = {"data": "prose", "task": CROPS, "rows": 200, "criterion": "wanda", "sparsity": 0.5}
    given = job(tmp_path, parents["llama"], "llama", **own, search_task="language_modelling:length=48", search_limit=5)
    batches = _pruner.held_out_batches(given.options, model, processor)
    assert [tuple(batch["input_ids"].shape) for batch in batches] == [(4, 48), (1, 48)]
    assert _pruner.calibration(given.options, model, processor)[0]["input_ids"].shape == (4, 64)


@pytest.mark.parametrize(
    ("cut", "text"), [("crops", "makes no example of prose"), ("joined", "fewer than one window of 999999")]
)
def test_a_search_without_examples_is_told_before_anything_is_pruned(tmp_path, parents, monkeypatch, cut, text):
    monkeypatch.setattr(_pruner, "prune_model", lambda *_: pytest.fail("something was pruned"))
    given = job(
        *(tmp_path, parents["llama"], "llama"),
        **{"data": "prose", "task": CROPS, "criterion": "wanda", "sparsity": 0.6, "allocation": "atp_search:trials=2"},
        search_task=f"language_modelling:cut={cut},length=999999",
    )
    with pytest.raises(Problem, match=text) as raised:
        list(prune.run(given))
    assert raised.value.where == "prune.search_data" and raised.value.hint


def test_a_search_by_magnitude_calibrates_nothing(tmp_path, parents, monkeypatch):
    monkeypatch.setattr(_pruner, "calibration", lambda *_: pytest.fail("calibration data was read"))
    given = job(
        *(tmp_path, parents["llama"], "llama"),
        **{"criterion": "magnitude", "sparsity": 0.6, "allocation": "atp_search:trials=2", "search_limit": 4},
    )
    list(prune.run(given))
    assert report(given)["calibration"] is None and len(report(given)["trials"]) == 2


def test_progress_counts_each_blocks_mask_once(tmp_path, parents, monkeypatch):
    counted, sparsity = [], keep.sparsity
    monkeypatch.setattr(keep, "sparsity", lambda keeps: counted.append(len(keeps)) or sparsity(keeps))
    given = job(tmp_path, parents["llama"], "llama", criterion="magnitude", sparsity=0.5, allocation="er")
    seen = [each.values["sparsity"] for each in prune.run(given)]
    blocks, zeros, size = report(given)["blocks"].values(), 0, 0
    for block, said in zip(blocks, seen, strict=True):
        zeros, size = zeros + block["zeros"], size + block["size"]
        assert said == zeros / size
    assert len(counted) <= 1 and seen[-1] == sparsity(keep.load(given.folder))


def test_outside_an_experiment_a_search_by_magnitude_needs_only_its_own_data():
    given = {"criterion": "magnitude", "sparsity": 0.6, "allocation": "atp_search"}
    with pytest.raises(Problem, match="judged on held-out data, and none is given"):
        oneoff.section(given, None)
    options = oneoff.section({**given, "search_data": "prose", "search_task": "language_modelling:length=9"}, None)
    assert options["search_task"].startswith("language_modelling:") and "length=9" in options["search_task"]
    with pytest.raises(Problem, match="looks at calibration data, and none is given"):
        oneoff.section({**given, "criterion": "wanda", "search_data": "prose"}, None)


def test_the_weights_come_out_in_the_dtype_asked_for(tmp_path, parents):
    given = job(tmp_path, parents["mpt"], "mpt", criterion="wanda", sparsity=0.5, dtype="bfloat16")
    list(prune.run(given))
    assert json.loads((given.folder / "config.json").read_text())["dtype"] == "bfloat16"
    keep.verify(models.load(given.folder), keep.load(given.folder))


@pytest.mark.parametrize("family", ["llama", "vit"])
def test_written_zeros_are_verified_however_the_files_name_the_layers(family, tmp_path):
    model, processor = rooms.load("model", family).tiny(TEXTS, seed=0)
    linears = [linear for block in models.blocks(model) for linear in block.linears]
    keeps = {linear.name: torch.rand(linear.module.weight.shape) < 0.5 for linear in linears}
    keep.apply(model, keeps)
    models.save(model, processor, tmp_path)
    verify_written(tmp_path, keeps)
    with torch.no_grad():
        linears[-1].module.weight.fill_(1)
    models.save(model, processor, tmp_path)
    with pytest.raises(Problem, match=f"{linears[-1].name}.*pruned weights are not zero"):
        verify_written(tmp_path, keeps)
