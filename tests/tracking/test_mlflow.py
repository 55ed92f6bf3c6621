from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.problems import Problem
from harness.runs.events import CellDone
from harness.tracking import curves, facets, mlflow, record

LABEL = "0.75/squarehead"


@pytest.fixture(scope="session")
def store(samples, tracking_uri, tmp_path_factory):
    """The store, filled by `sync` with the records of one label and the dense model."""
    root = tmp_path_factory.mktemp("mlflow")
    entry, results = samples.entry(root / "experiments"), root / "results"
    records = samples.records(entry, results, (LABEL, "dense"))
    written = mlflow.sync(records, tracking_uri, results)
    mirror = mlflow.Mirror(tracking_uri, results)
    return SimpleNamespace(
        records=records, results=results, uri=tracking_uri, written=written, mirror=mirror, root=root
    )


def runs(store, wanted=""):
    return store.mirror.client.search_runs([store.mirror.experiment("sample/translation")], wanted)


def the_run(store):
    return next(run for run in runs(store, f"tags.label = '{LABEL}'") if run.data.tags["seed"] == "1")


def test_every_record_becomes_one_finished_run(store):
    assert store.written == len(store.records) == 4
    assert len(runs(store, "attributes.status = 'FINISHED'")) == len(runs(store)) == 4


def test_tags_are_what_one_filters_by(store):
    wanted = "tags.paper = 'sample' and tags.loss = 'squarehead' and tags.sparsity = '0.75' and tags.scale = 'tiny'"
    assert {run.data.tags["seed"] for run in runs(store, wanted)} == {"0", "1", "2"}
    tags, said = the_run(store).data.tags, next(r for r in store.records if (r["label"], r["seed"]) == (LABEL, 1))
    assert (tags["model"], tags["data"], tags["table"]) == ("tiny/t5", "cldr_pairs:size=4000", "Table 1")
    assert tags["task"].startswith("translation:") and "beams=1," in tags["task"]
    assert (tags["criterion"], tags["kind"], tags["status"]) == ("magnitude", "cell", "finished")
    assert tags["stage.tune"] == said["stages"]["tune"]["key"][:10]
    dense = next(run for run in runs(store) if run.data.tags["label"] == "dense")
    assert (dense.data.tags["baseline"], dense.data.tags["sparsity"]) == ("dense", "0.0")
    assert not {"seed", "loss", "stage.tune"} & dense.data.tags.keys()


def test_every_resolved_option_is_a_parameter(store):
    said = next(r for r in store.records if (r["label"], r["seed"]) == (LABEL, 1))
    params = the_run(store).data.params
    options = sum(len(s["options"]) + len(s["handling"]) for s in said["stages"].values())
    assert len(params) == options
    assert params["tune.lr"] == "0.001"
    assert params["evaluate.bleu.limit"] == "none"
    assert params["tune.loss"] == "cross_entropy + squarehead:eps=1e-09,final=norm"


def test_scores_curves_and_seconds_are_metrics(store):
    run, said = the_run(store), next(r for r in store.records if (r["label"], r["seed"]) == (LABEL, 1))
    metrics = run.data.metrics
    assert metrics["bleu"] == said["metrics"]["bleu"]["bleu"]["value"]
    assert metrics["bleu_stderr"] == 0.7
    assert metrics["bleu/chrf"] == said["metrics"]["bleu"]["chrf"]["value"]
    assert metrics["sparsity/of_all_weights"] == pytest.approx(0.6)
    assert metrics["seconds/tune"] == said["stages"]["tune"]["seconds"]
    history = store.mirror.client.get_metric_history(run.info.run_id, "tune/loss")
    points = sorted((point.step, point.value) for point in history)
    assert points == list(zip(said["curves"]["tune"]["step"], said["curves"]["tune"]["loss"], strict=True))


def test_data_sets_are_inputs(store):
    (found,) = the_run(store).inputs.dataset_inputs
    assert found.dataset.name == "cldr_pairs"
    assert found.dataset.source.startswith("generated:cldr_pairs@")
    assert [tag.value for tag in found.tags] == ["prepare, tune, evaluate/bleu"]


def test_record_and_predictions_are_artifacts(store):
    client, run = store.mirror.client, the_run(store).info.run_id
    assert {a.path for a in client.list_artifacts(run)} == {"record.json", "prune", "evaluate"}
    assert [a.path for a in client.list_artifacts(run, "evaluate/bleu")] == ["evaluate/bleu/predictions.jsonl"]
    assert [a.path for a in client.list_artifacts(run, "prune")] == ["prune/prune.json"]


def test_a_second_sync_writes_nothing(store):
    before = {run.info.run_id for run in runs(store)}
    assert mlflow.sync(store.records, store.uri, store.results) == 0
    assert {run.info.run_id for run in runs(store)} == before


def test_a_lost_run_is_rebuilt_and_a_cut_off_one_replaced(store):
    client, lost = store.mirror.client, the_run(store)
    client.delete_run(lost.info.run_id)
    cut_off = store.mirror.open(store.records[0])
    dense = next(run for run in runs(store) if run.info.run_id == cut_off)
    assert dense.info.status == "RUNNING"
    assert mlflow.sync(store.records, store.uri, store.results) == 2
    again = the_run(store)
    for part in ("params", "metrics"):
        assert getattr(again.data, part) == getattr(lost.data, part)
    assert again.data.tags["cell"] == lost.data.tags["cell"]
    assert len(runs(store)) == 4
    assert len(client.get_metric_history(again.info.run_id, "tune/loss")) == curves.POINTS


def test_other_settings_are_another_cell(store):
    said = store.records[0]
    other = {**said, "stages": {role: {**stage, "key": "0" * 64} for role, stage in said["stages"].items()}}
    assert facets.cell_key(said) != facets.cell_key(other)
    assert facets.cell_key(said) == facets.cell_key({**said, "metrics": {}})


def test_long_values_are_cut_and_the_record_has_them_whole(store):
    said = {**store.records[0], "label": "long"}
    long = "x" * 9000
    said["stages"] = {"prepare": {**said["stages"]["prepare"], "key": "1" * 64, "options": {"loss": long}}}
    said["task"] = long
    store.mirror.complete(said)
    (run,) = runs(store, "tags.label = 'long'")
    assert run.data.params["prepare.loss"] == "x" * 497 + "..."
    assert len(run.data.tags["task"]) == facets.LONGEST_TAG
    path = store.mirror.client.download_artifacts(run.info.run_id, "record.json", str(store.root))
    assert long in Path(path).read_text(encoding="utf8")


def test_a_report_has_one_run_and_is_the_experiments_description(store, tmp_path):
    table = tmp_path / "table.md"
    for text in ("| a |", "| b |"):
        table.write_text(text)
        store.mirror.report("sample/translation", "tiny", [table], text)
    (run,) = runs(store, "tags.kind = 'report'")
    assert [a.path for a in store.mirror.client.list_artifacts(run.info.run_id)] == ["table.md"]
    experiment = store.mirror.client.get_experiment_by_name("sample/translation")
    assert experiment.tags["mlflow.note.content"] == "| b |"
    assert experiment.artifact_location == (store.results / "mlartifacts" / "sample.translation").as_uri()


def test_an_experiment_in_the_trash_is_taken_back(store):
    identity = store.mirror.client.create_experiment("trashed")
    store.mirror.client.delete_experiment(identity)
    assert store.mirror.experiment("trashed") == identity
    assert store.mirror.client.get_experiment(identity).lifecycle_stage == "active"


def test_names_of_metrics_keep_only_what_mlflow_allows(store):
    run = store.mirror.open({**store.records[0], "label": "odd"})
    store.mirror.points(run, [("tune/loss (β=2)", 1.0, 1, 0)])
    assert "tune/loss _β_2_" in store.mirror.client.get_run(run).data.metrics
    store.mirror.end(run, "KILLED")


def test_plots_are_kept_in_the_runs_of_their_cells(store, tmp_path):
    plot, table = tmp_path / "translation.tiny.bleu.png", tmp_path / "table.md"
    plot.write_bytes(b"a plot"), table.write_text("| a |")
    keys = [facets.cell_key(said) for said in store.records if said["label"] == LABEL]
    store.mirror.report("sample/translation", "tiny", [table, plot], "| a |", keys)
    lists = store.mirror.client.list_artifacts
    kept = {run.data.tags["label"]: lists(run.info.run_id, "plots") for run in runs(store, "tags.kind = 'cell'")}
    assert [artifact.path for artifact in kept[LABEL]] == [f"plots/{plot.name}"] and kept["dense"] == []


def test_a_sync_keeps_the_plots_that_are_there(store):
    plot = store.results / "plots" / "sample" / "translation.tiny.bleu.png"
    plot.parent.mkdir(parents=True)
    plot.write_bytes(b"a plot")
    (dense,) = runs(store, "tags.label = 'dense'")
    store.mirror.client.delete_run(dense.info.run_id)
    assert mlflow.sync(store.records, store.uri, store.results) == 1
    (dense,) = runs(store, "tags.label = 'dense'")
    assert [a.path for a in store.mirror.client.list_artifacts(dense.info.run_id, "plots")] == [f"plots/{plot.name}"]


def test_a_run_rebuilt_from_a_record_is_the_run_that_was_live(samples, store):
    from harness.tracking.live import Tracker

    label, entry = "0.9/cross_entropy", samples.entry(store.root / "experiments")
    plan = samples.planned(entry, store.results, (label,))
    with Tracker(plan, {entry.name: entry}, store.results, store.uri) as tracker:
        done = []
        for event in samples.run(plan, store.results):
            tracker.listen(event)
            done += [event] if isinstance(event, CellDone) else []
    records = [record.build(entry, event.cell, event.folders, store.results) for event in done]
    live = {run.data.tags["cell"]: run for run in runs(store, f"tags.label = '{label}'")}
    assert len(live) == 3
    for run in live.values():
        store.mirror.client.delete_run(run.info.run_id)
    assert mlflow.sync(records, store.uri, store.results) == 3
    rebuilt = {run.data.tags["cell"]: run for run in runs(store, f"tags.label = '{label}'")}
    assert rebuilt.keys() == live.keys()
    for cell, run in rebuilt.items():
        before = live[cell]
        assert run.data.params == before.data.params
        assert run.data.tags == before.data.tags
        only_live = ("tune/tokens_per_second", "prepare/tokens_per_second")
        told = {name: value for name, value in before.data.metrics.items() if not name.startswith("system/")}
        assert run.data.metrics == {name: value for name, value in told.items() if name not in only_live}
        assert run.inputs.dataset_inputs[0].dataset == before.inputs.dataset_inputs[0].dataset
        for name in ("tune/loss", "prepare/loss"):
            histories = (store.mirror.client.get_metric_history(one.info.run_id, name) for one in (run, before))
            assert len({tuple(sorted((p.step, p.value) for p in history)) for history in histories}) == 1


@pytest.mark.parametrize("uri", ["sqlite:////dev/null/no/folder.db", "odd://place", "http://me:secret@127.0.0.1:9"])
def test_a_store_that_cannot_be_used_is_a_problem(store, monkeypatch, uri):
    for name in mlflow.PATIENCE:
        monkeypatch.setenv(name, "1")
    with pytest.raises(Problem, match="MLFLOW_TRACKING_URI") as caught:
        mlflow.sync(store.records, uri, store.root)
    assert uri.replace("me:secret", "***") in str(caught.value) and "secret" not in str(caught.value)
