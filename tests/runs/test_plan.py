from __future__ import annotations

import importlib.metadata
import json
import time

import pytest

from harness import rooms
from harness.runs.decides import SINCE
from harness.runs.plan import missing_sources, plan
from harness.runs.store import Store
from harness.sources import Source
from harness.spec import entry as spec
from harness.spec.grid import cells

ENTRY = """
title: tiny T5
model: tiny/t5
data: cldr_pairs
task: translation
prepare: {steps: 10, lr: 1e-3}
prune: {solver: sparsegpt, samples: 8}
tune: {loss: cross_entropy, steps: 5, lr: 1e-3}
grid: {prune.sparsity: [0.5, 0.75], tune.loss: {cross_entropy: cross_entropy, squarehead: cross_entropy + squarehead}}
"""


@pytest.fixture
def planned(tmp_path):
    """Plans the entry above with lines added or, where they name a key of it, replaced."""
    store = Store(tmp_path / "artifacts")

    def planned(*lines, scale=None, set=()):
        path = tmp_path / "experiments" / "entry.yaml"
        path.parent.mkdir(exist_ok=True)
        keys = [line.partition(":")[0] for line in lines]
        kept = [line for line in ENTRY.splitlines() if line.partition(":")[0] not in keys]
        path.write_text("\n".join([*kept, *lines]))
        return plan(cells(spec.read("entry", scale, path.parent, set)), store)

    planned.store = store
    return planned


def _names(plan):
    return [stage.name for stage in plan.stages]


def _cell(plan, label, seed=None):
    return next(c for c in plan.cells if c.cell.label == label and (seed is None or c.cell.seed == seed))


def test_cells_share_stages(planned):
    found = planned()
    assert [item.cell.label for item in found.cells] == [
        *("dense", "0.5/one_shot", "0.75/one_shot"),
        *("0.5/cross_entropy", "0.5/squarehead", "0.75/cross_entropy", "0.75/squarehead"),
    ]
    assert {name: _names(found).count(name) for name in _names(found)} == {
        "prepare": 1, "prune": 2, "tune": 4, "evaluate": 7
    }  # fmt: skip
    assert found.shared == 2 + 2 * 3 + 4 * 4 - 14
    assert found.counts == {"missing": 14} and found.missing == ()
    assert found.summary() == "7 cells, 14 stages (14 missing); sharing saves 10"


def test_roles_and_parents_of_a_cell(planned):
    found = planned()
    dense, one_shot, tuned = (_cell(found, label).stages for label in ("dense", "0.5/one_shot", "0.5/squarehead"))
    assert list(dense) == ["prepare", "evaluate/translation"]
    assert list(one_shot) == ["prepare", "prune", "evaluate/translation"]
    assert list(tuned) == ["prepare", "prune", "tune", "evaluate/translation"]
    assert dense["evaluate/translation"].parents == {"model": dense["prepare"]}
    assert one_shot["evaluate/translation"].parents == {"model": one_shot["prune"]}
    assert tuned["prune"] == one_shot["prune"] and tuned["prune"].parents == {"model": dense["prepare"]}
    assert tuned["tune"].parents == {"model": tuned["prune"], "teacher": dense["prepare"]}
    assert tuned["evaluate/translation"].parents == {"model": tuned["tune"]}


def test_only_a_loss_that_looks_at_a_teacher_gets_one(planned):
    assert set(_cell(planned(), "0.5/cross_entropy").stages["tune"].parents) == {"model"}


def test_parents_come_first_and_cells_are_completed_one_by_one(planned):
    found = planned()
    order = {stage: number for number, stage in enumerate(found.stages)}
    assert all(order[parent] < order[stage] for stage in order for parent in stage.parents.values())
    last = [max(order[stage] for stage in item.needs) for item in found.cells]
    assert last == sorted(last)


def test_who_needs_a_stage(planned):
    found = planned()
    tuned = _cell(found, "0.5/squarehead").stages
    labels = {role: [item.cell.label for item in found.needing(stage)] for role, stage in tuned.items()}
    assert len(labels["prepare"]) == 7 and labels["tune"] == ["0.5/squarehead"]
    assert labels["prune"] == ["0.5/one_shot", "0.5/cross_entropy", "0.5/squarehead"]


def test_options_are_what_decides_and_nothing_else(planned):
    stages = _cell(planned(), "0.5/squarehead").stages
    assert stages["prepare"].options["model"] == "tiny/t5" and "model" not in stages["tune"].options
    assert stages["tune"].options["loss"].startswith("cross_entropy + squarehead:")
    assert {"lr", "steps", "seed", "betas", "weight_decay"} <= stages["tune"].options.keys()
    assert stages["tune"].handling == {"checkpoint_every": 100, "recompute": False, **SINCE}
    assert not stages["tune"].handling.keys() & stages["tune"].options.keys()
    assert set(stages["evaluate/translation"].options) == {"data", "task", "split", "metric", "limit", "batch_size"}
    assert all(json.dumps(stage.options) for stage in stages.values())
    assert all(stage.sources["data"].name == "cldr_pairs" for stage in stages.values())


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("tune.checkpoint_every=7", {"prepare", "prune", "tune", "evaluate"}),
        ("tune.recompute=true", {"prepare", "prune", "tune", "evaluate"}),
        ("tune.lr=0.0010", {"prepare", "prune", "tune", "evaluate"}),
        ("tune.lr=0.002", {"prepare", "prune"}),
        ("prune.samples=9", {"prepare"}),
        ("prepare.steps=11", set()),
        ("task=translation:beams=2", {"prepare", "prune", "tune"}),
        ("task=translation:max_source=64", set()),
        ("prune.seed=1", {"prepare"}),
        ("evaluate.translation.limit=3", {"prepare", "prune", "tune"}),
    ],
)
def test_a_change_reaches_what_comes_after_and_no_more(planned, change, same):
    before, after = (_cell(planned(set=sets), "0.5/squarehead").needs for sets in ((), (change,)))
    assert {stage.name for stage in before if stage in after} == same


def test_labels_and_titles_change_nothing(planned):
    renamed = 'grid: {prune.sparsity: {half: 0.5}, tune.loss: {ce: "cross_entropy"}}'
    before, after = planned(), planned("title: another", renamed, "seeds: [0]")
    assert set(after.stages) <= set(before.stages)


def test_a_criterion_that_looks_at_no_data_is_computed_once(planned):
    base = ("tune: null", "grid: {prune.sparsity: [0.5]}", "seeds: [0, 1, 2]")
    looks = planned("prune: {criterion: wanda, samples: 8}", *base)
    blind = planned("prune: {criterion: magnitude, samples: 8}", *base)
    assert (_names(looks).count("prune"), _names(blind).count("prune")) == (3, 1)
    (pruned,) = (stage for stage in blind.stages if stage.name == "prune")
    assert pruned.sources == {} and {"data", "samples", "seed"} <= pruned.handling.keys()
    assert len(blind.cells) == 4


def test_a_task_keeps_the_options_of_the_function_that_is_called(planned):
    stages = _cell(planned(), "0.5/squarehead").stages
    tune, judge = (rooms.parse(stages[role].options["task"]).options for role in ("tune", "evaluate/translation"))
    assert "max_target" in tune and "beams" not in tune and "beams" in judge
    assert {**tune, **judge} == rooms.resolve("task", "translation").options


def test_seeds_share_the_prune(planned):
    found = planned("seeds: [0, 1, 2]")
    assert len(found.cells) == 3 + 4 * 3 and _names(found).count("prune") == 2
    tunes = [_cell(found, "0.5/squarehead", seed).stages["tune"] for seed in range(3)]
    assert [stage.options["seed"] for stage in tunes] == [0, 1, 2] and len(set(tunes)) == 3


def test_a_chain_prunes_what_the_cell_before_has_tuned(planned):
    found = planned("chain: prune.sparsity")
    first, second = (_cell(found, f"{sparsity}/squarehead").stages for sparsity in ("0.5", "0.75"))
    assert second["prune"].parents == {"model": first["tune"]}
    assert second["tune"].parents == {"model": second["prune"], "teacher": first["prepare"]}
    assert first["prune"].parents == {"model": first["prepare"]}
    assert first["tune"] in _cell(found, "0.75/squarehead").needs
    assert _cell(found, "0.75/one_shot").stages["prune"].parents == {"model": first["prepare"]}
    assert "0.75/squarehead" in [item.cell.label for item in found.needing(first["tune"])]


def test_a_chain_may_be_long(planned):
    values = [round(0.1 + 0.001 * i, 3) for i in range(500)]
    found = planned("chain: prune.sparsity", f"grid: {{prune.sparsity: {values}}}", "baselines: []")
    assert len(found.cells) == 500 and len(found.cells[-1].needs) == 1 + 500 * 2 + 1


PRETRAIN = "pretrain: {steps: 3, lr: 1e-3}"


def test_sparse_pretraining_stands_between_prune_and_tune_and_is_shared(planned):
    found = planned(PRETRAIN, "baselines: [dense, one_shot, pretrained]", "seeds: [0, 1]")
    tuned, pretrained = (_cell(found, label).stages for label in ("0.5/squarehead", "0.5/pretrained"))
    assert list(tuned) == ["prepare", "prune", "pretrain", "tune", "evaluate/translation"]
    assert tuned["pretrain"].parents == {"model": tuned["prune"]}
    assert tuned["tune"].parents["model"] == tuned["pretrain"]
    assert tuned["tune"].parents["teacher"] == tuned["prepare"] and tuned["pretrain"] == pretrained["pretrain"]
    assert pretrained["evaluate/translation"].parents == {"model": pretrained["pretrain"]} and "tune" not in pretrained
    assert _names(found).count("pretrain") == 2
    assert tuned["pretrain"].slug == "tiny-t5.sparsegpt.s50.pretrained"
    assert tuned["tune"].slug.startswith("tiny-t5.sparsegpt.s50.pretrained.cross_entropy+squarehead.seed")


def test_without_sparse_pretraining_no_key_knows_of_it(planned):
    assert set(planned("pretrain: null").stages) == set(planned().stages)
    named = planned("prune: {solver: sparsegpt, samples: 8, start: dense}")
    assert set(named.stages) == set(planned().stages)


def test_a_chain_prunes_what_the_cell_before_has_pretrained(planned):
    found = planned(PRETRAIN, "chain: prune.sparsity")
    first, second = (_cell(found, f"{sparsity}/squarehead").stages for sparsity in ("0.5", "0.75"))
    assert second["prune"].parents == {"model": first["pretrain"]}
    assert first["tune"] not in _cell(found, "0.75/squarehead").needs


def test_the_base_is_pruned_and_the_prepared_model_teaches(planned, tmp_path):
    folder = _folder(tmp_path, "My-T5")
    found = planned(f"model: {folder}", "prune: {solver: sparsegpt, samples: 8, start: base}", PRETRAIN)
    stages = _cell(found, "0.5/squarehead").stages
    assert stages["prune"].parents == {} and stages["prune"].sources["model"].path == folder
    assert stages["tune"].parents == {"model": stages["pretrain"], "teacher": stages["prepare"]}
    bare = planned(f"model: {folder}", "prepare: null")
    named = planned(f"model: {folder}", "prepare: null", "prune: {solver: sparsegpt, samples: 8, start: base}")
    assert set(bare.stages) == set(named.stages)


def _folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "t5"}')
    (folder / "model.safetensors").write_text("weights")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_without_prepare_the_source_is_the_model(planned, tmp_path):
    folder = _folder(tmp_path, "My-T5")
    found = planned(f"model: {folder}", "prepare: null")
    dense, tuned = (_cell(found, label).stages for label in ("dense", "0.5/squarehead"))
    source = dense["evaluate/translation"].sources["model"]
    assert source.kind == "folder" and source.path == folder and source.revision.startswith("sha256:")
    assert tuned["prune"].sources["model"] == source == tuned["tune"].sources["teacher"]
    assert tuned["prune"].parents == {} and "prepare" not in tuned and "prepare" not in _names(found)
    (folder / "config.json").write_text('{"model_type":  "t5"}')
    assert not set(planned(f"model: {folder}", "prepare: null").stages) & set(found.stages)


def test_a_prepared_real_model_has_its_source(planned, tmp_path):
    folder = _folder(tmp_path, "My-T5")
    prepared = _cell(planned(f"model: {folder}"), "dense").stages["prepare"]
    assert prepared.sources["model"].path == folder and prepared.models == {"model": prepared.sources["model"]}


def test_a_hub_revision_is_part_of_the_source(planned, monkeypatch):
    monkeypatch.delenv("HARNESS_MIRROR", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("harness.sources._on_hub", lambda *asked: ("a" * 40, "") if asked[2] == "v2" else None)
    stages = _cell(planned("model: org/name@v2"), "dense").stages
    assert stages["prepare"].sources["model"] == Source("hub", "org/name", "a" * 40)


def test_everything_that_is_missing_is_found_at_once(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    found = planned("model: org/name", "prepare: null", "data: wmt14")
    assert found.cells == () and found.stages == () and found.unplanned == 7
    whats = [problem.what for problem in found.missing]
    assert len(whats) == 2 and "org/name" in whats[0] and "wmt14" in whats[1]
    assert found.summary() == "0 cells, 0 stages; 7 cells cannot run here"
    entry = spec.read("entry", root=tmp_path / "experiments")
    assert [str(problem) for problem in missing_sources(entry)] == [str(problem) for problem in found.missing]


def test_a_model_that_could_not_be_loaded_is_found_while_planning(planned, tmp_path):
    folder = _folder(tmp_path, "broken")
    (folder / "model.safetensors").unlink()
    found = planned(f"model: {folder}", "prepare: null")
    assert found.cells == () and [problem.where for problem in found.missing] == [str(folder)]
    assert "no weights" in found.missing[0].what


def test_a_model_of_a_family_that_does_not_serve_the_task_is_found_while_planning(planned, tmp_path):
    folder = _folder(tmp_path, "speaks")
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    (folder / "preprocessor_config.json").write_text("{}")
    found = planned(f"model: {folder}", "prepare: null")
    assert found.cells == () and found.unplanned == 7
    (problem,) = found.missing
    assert "'translation'" in problem.what and "t5" in problem.hint


def test_the_config_in_the_hubs_cache_tells_the_family(planned, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HARNESS_MIRROR", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("harness.sources._on_hub", lambda *asked: ("a" * 40, ""))
    assert planned("model: org/name", "prepare: null").missing == ()
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "whisper"}')
    (problem,) = planned("model: org/name", "prepare: null").missing
    assert "org/name" in problem.what and "'translation'" in problem.what


SEARCHES = "prune: {criterion: magnitude, samples: 8, allocation: 'atp_search:step=0.1', %s}"


def test_what_a_search_is_judged_on_is_a_source_of_its_own(planned):
    grid = "grid: {prune.sparsity: [0.5]}"
    both = SEARCHES.replace("magnitude", "wanda") % "search_limit: 4"
    pruned = _cell(planned(both, grid, "tune: null"), "0.5").stages["prune"]
    assert pruned.sources["search"] == pruned.sources["data"] and pruned.options["search_limit"] == 4
    other = SEARCHES.replace("magnitude", "wanda") % "search_data: 'cldr_pairs:size=300'"
    searched = _cell(planned(other, grid, "tune: null"), "0.5").stages["prune"]
    assert searched.sources["search"].kind == "generated" and searched.key != pruned.key
    plain = "prune: {criterion: magnitude, samples: 8, search_limit: 4}"
    assert "search" not in _cell(planned(plain, grid, "tune: null"), "0.5").stages["prune"].sources


def test_a_search_that_calibrates_nothing_reads_only_what_it_is_judged_on(planned):
    def pruned(more):
        return _cell(planned(SEARCHES % more, "grid: {prune.sparsity: [0.5]}", "tune: null"), "0.5").stages["prune"]

    one = pruned("search_limit: 4")
    assert set(one.sources) == {"search"} and one.handling["samples"] == 8
    assert pruned("search_limit: 4, seed: 3, rows: 20, split: validation").key == one.key
    others = ("batch_size: 2", "data: 'cldr_pairs:size=300'", "search_split: test", "search_task: translation")
    assert len({one.key, *(pruned(f"search_limit: 4, {other}").key for other in others)}) == 1 + len(others)
    own = "search_data: 'cldr_pairs:size=300', search_task: 'translation:max_source=64'"
    assert pruned(own).key == pruned(f"{own}, data: 'cldr_pairs:size=400', task: 'translation:max_source=32'").key


def test_held_out_data_that_cannot_be_had_are_missing(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    found = planned(SEARCHES % "search_data: wmt14", "grid: {prune.sparsity: [0.5]}", "tune: null")
    assert len(found.missing) == 1 and "wmt14" in found.missing[0].what
    assert [item.cell.label for item in found.cells] == ["dense"]


def test_cells_whose_sources_are_here_are_planned_without_the_others(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    found = planned("grid: {model: {here: tiny/t5, absent: org/name}, prune.sparsity: [0.5]}")
    assert found.cells and found.unplanned == len(found.cells)
    assert {item.cell.axes["model"] for item in found.cells} == {"here"}


def test_a_task_that_brings_its_data_has_them_as_sources(planned):
    found = planned("evaluate: {choice: {task: 'zero_shot:tasks=tiny_cldr+tiny_prose'}}")
    stage = _cell(found, "dense").stages["evaluate/choice"]
    assert list(stage.sources) == ["data/tiny_cldr", "data/tiny_prose", "package/lm_eval"] and stage.models == {}


def test_another_version_of_what_scores_is_another_evaluation(planned, monkeypatch):
    before = _cell(planned(""), "dense").stages["evaluate/translation"]
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0" if name == "sacrebleu" else real(name))
    after = _cell(planned(""), "dense").stages["evaluate/translation"]
    assert after.sources["package/sacrebleu"].revision == "0.0" and before.key != after.key
    assert before.parents["model"].key == after.parents["model"].key


def test_shots_need_the_training_split(planned, tmp_path, monkeypatch):
    from harness.data import cldr_pairs
    from harness.runs.origins import Origins

    asked = []
    monkeypatch.setattr(cldr_pairs, "source", lambda splits=(), **_: asked.append(splits))
    section = {"data": "cldr_pairs", "split": "test", "task": "reasoning:shots=3"}
    Origins().data(section)
    Origins().data({**section, "task": "reasoning:shots=0"})
    assert asked == [("test", "train"), ("test",)]


def test_folders_can_be_read(planned):
    needs = _cell(planned(), "0.5/squarehead").needs
    assert [stage.slug for stage in needs] == [
        "tiny-t5.cldr_pairs",
        "tiny-t5.sparsegpt.s50",
        "tiny-t5.sparsegpt.s50.cross_entropy+squarehead.seed0",
        "tiny-t5.sparsegpt.s50.cross_entropy+squarehead.seed0.bleu",
    ]
    assert needs[1].folder == f"prune/tiny-t5.sparsegpt.s50-{needs[1].key[:10]}"


def test_folders_tell_the_pattern_and_the_seed(planned, tmp_path):
    lines = ("prune: {criterion: magnitude, pattern: '2:4'}", "grid: {tune.loss: [cross_entropy]}", "seeds: [4]")
    folder = _folder(tmp_path, "My T5")
    needs = _cell(planned(f"model: {folder}", "prepare: null", *lines), "cross_entropy").needs
    assert [stage.slug for stage in needs[:2]] == ["My-T5.magnitude.2of4", "My-T5.magnitude.2of4.cross_entropy.seed4"]


def test_states_come_from_the_store(planned):
    found = planned()
    planned.store.begin(found.stages[0]).fail("no")
    assert planned().counts == {"missing": 13, "failed": 1}


def test_a_thousand_cells(planned):
    losses = "{" + ", ".join(f"l{n}: '{n + 1}.5*cross_entropy + squarehead'" for n in range(10)) + "}"
    grid = f"grid: {{prune.sparsity: [{', '.join(f'0.{n}' for n in range(10, 20))}], tune.loss: {losses}}}"
    found = planned(grid, f"seeds: {list(range(10))}")
    every = [item.cell for item in found.cells]
    assert len(every) == 1011 and len(found.stages) == 1 + 10 + 1000 + 1011
    begin = time.process_time()
    plan(every, planned.store)
    assert time.process_time() - begin < 2  # 0.3 on an idle core


def test_with_a_ramp_the_training_prunes_the_dense_model_itself(planned):
    sets = ("tune.ramp=cubic:steps=3", "prune.solver=null", "prune.criterion=wanda", "tune.restart=true")
    found = planned(set=sets)
    cell, one_shot = (_cell(found, label).stages for label in ("0.5/squarehead", "0.5/one_shot"))
    assert list(cell) == ["prepare", "tune", "evaluate/translation"] and "prune" in one_shot
    tune = cell["tune"]
    assert tune.parents == {"model": cell["prepare"], "teacher": cell["prepare"]}
    assert tune.options["prune"] == one_shot["prune"].options and tune.options["prune"]["sparsity"] == 0.5
    assert tune.sources["prune/data"] == one_shot["prune"].sources["data"]
    assert ".cubic.s50." in tune.slug
    other = _cell(planned(set=(*sets, "prune.samples=9")), "0.5/squarehead").stages
    assert other["prepare"] == cell["prepare"] and other["tune"] != tune


def test_a_method_that_prunes_afterwards_is_handed_the_section_that_decides(planned):
    sets = ("tune.method=lora_star", "prune.solver=null", "prune.criterion=magnitude")
    cell = _cell(planned(set=sets), "0.5/squarehead").stages
    tune = cell["tune"]
    assert tune.parents["model"] == cell["prune"] and tune.options["prune"] == cell["prune"].options
    assert "samples" not in tune.options["prune"] and "prune/data" not in tune.sources
    assert _cell(planned(set=(*sets, "prune.samples=9")), "0.5/squarehead").stages["tune"] == tune
    assert "prune" not in _cell(planned(), "0.5/squarehead").stages["tune"].options
