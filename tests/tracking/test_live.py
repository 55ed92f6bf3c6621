from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.runs.events import CellDone, StageDone
from harness.tracking import curves, live, mlflow
from harness.tracking.live import Tracker

LABELS = ("dense", "0.5/squarehead", "0.75/one_shot")


@pytest.fixture(scope="module")
def store(tracking_uri, tmp_path_factory):
    """The store; each test has its own experiment in it."""
    return SimpleNamespace(uri=tracking_uri, mirror=mlflow.Mirror(tracking_uri, tmp_path_factory.mktemp("live")))


@pytest.fixture
def world(samples, store, tmp_path, request):
    """An entry of this test's name, its results and plan, and functions to follow it and to look at its runs."""
    name = f"sample/{request.node.name}"
    entry, results = samples.entry(tmp_path / "experiments", name=name), tmp_path / "results"
    plan = samples.planned(entry, results, LABELS)
    said: list[str] = []

    def follow(fail="", uri=store.uri, plan=plan):
        with Tracker(plan, {name: entry}, results, uri, said.append) as tracker:
            done = 0
            for event in samples.run(plan, results, fail):
                tracker.listen(event)
                done += isinstance(event, CellDone)
        return done

    def runs(wanted=""):
        return store.mirror.client.search_runs([store.mirror.experiment(name)], wanted)

    client = store.mirror.client
    return SimpleNamespace(entry=entry, results=results, plan=plan, said=said, follow=follow, runs=runs, client=client)


def test_every_cell_has_one_run_and_shared_curves_are_in_all(world):
    assert world.follow() == 5
    runs = world.runs()
    assert sorted(run.data.tags["label"] for run in runs) == ["0.5/squarehead"] * 3 + ["0.75/one_shot", "dense"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        history = world.client.get_metric_history(run.info.run_id, "prepare/loss")
        assert sorted(point.step for point in history) == [1 + step for step in curves.evenly(300)]
    assert world.said == []


def test_a_second_run_of_what_is_done_touches_no_store(world):
    world.follow()
    before = {run.info.run_id for run in world.runs()}
    world.follow(uri="sqlite:////dev/null/never/opened.db")
    assert world.said == []
    assert {run.info.run_id for run in world.runs()} == before


def test_a_cell_computed_again_is_not_doubled(world, samples):
    world.follow()
    first = world.runs("tags.label = 'dense'")[0]
    folder = next(world.results.glob("artifacts/evaluate/tiny-t5.cldr_pairs.bleu-*"))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    world.follow()
    assert len(world.runs()) == 5
    assert world.runs("tags.label = 'dense'")[0].info.run_id != first.info.run_id


def test_what_an_earlier_run_did_not_track_is_tracked_when_something_is_computed(world, samples):
    plan = samples.planned(world.entry, world.results, ("dense",))
    world.follow(uri="sqlite:////dev/null/never/opened.db", plan=plan)
    assert len(world.said) == 1
    world.follow()
    assert len(world.runs("tags.label = 'dense' and attributes.status = 'FINISHED'")) == 1


def test_a_failed_cell_says_why_and_the_others_go_on(world):
    assert world.follow(fail="tune") == 2
    failed = world.runs("attributes.status = 'FAILED'")
    assert {run.data.tags["label"] for run in failed} == {"0.5/squarehead"}
    assert len(failed) == 3
    for run in failed:
        assert run.data.tags["status"] == "failed"
        assert "ZeroDivisionError: made to fail" in run.data.tags["error"]
        assert "error.txt" in [artifact.path for artifact in world.client.list_artifacts(run.info.run_id)]
    assert len(world.runs("attributes.status = 'FINISHED'")) == 2


def test_a_failed_cell_that_is_done_later_leaves_one_run(world, samples):
    world.follow(fail="tune")
    for path in world.results.glob("artifacts/tune/*.partial/error.txt"):
        path.unlink()
    assert world.follow() == 5
    assert {run.info.status for run in world.runs()} == {"FINISHED"}
    assert len(world.runs()) == 5


def test_a_run_that_is_left_is_killed(world, samples, store):
    with Tracker(world.plan, {world.entry.name: world.entry}, world.results, store.uri) as tracker:
        for number, event in enumerate(samples.run(world.plan, world.results)):
            tracker.listen(event)
            if number == 20:
                break
    (run,) = world.runs()
    assert (run.info.status, run.data.tags["status"]) == ("KILLED", "killed")
    assert len(world.client.get_metric_history(run.info.run_id, "prepare/loss")) > 5


def test_a_tracking_failure_is_said_once_and_loses_nothing(world):
    assert world.follow(uri="sqlite:////dev/null/no/folder.db") == 5
    assert len(world.said) == 1
    assert "harness sync" in world.said[0]


def test_where_nothing_can_be_computed_no_store_is_opened(world):
    world.results.mkdir()
    (world.results / "artifacts").write_text("a file where the folder should be")
    assert world.follow(uri="sqlite:////dev/null/never/opened.db") == 0
    assert world.said == []


def test_a_failure_in_the_middle_is_said_once_too(world, monkeypatch):
    monkeypatch.setattr(mlflow.Mirror, "finish", lambda *_: 1 / 0)
    assert world.follow() == 5
    (said,) = world.said
    assert "ZeroDivisionError" in said


def test_the_machines_load_is_watched(world, monkeypatch):
    monkeypatch.setattr(mlflow, "SYSTEM_EVERY", 0.02)
    started = []
    watch = mlflow.Mirror.watch
    monkeypatch.setattr(mlflow.Mirror, "watch", lambda self, run: started.append(watch(self, run)) or started[-1])

    follow = live.Tracker.listen

    def slowly(self, event):
        time.sleep(0.5 if isinstance(event, StageDone) and event.stage.name == "prepare" else 0)
        follow(self, event)

    monkeypatch.setattr(live.Tracker, "listen", slowly)
    world.follow()
    assert len(started) == 5
    assert all(monitor._process is None for monitor in started)
    assert any("system/cpu_utilization_percentage" in run.data.metrics for run in world.runs())


def test_a_chains_beginning_is_followed_though_only_its_end_is_asked_for(samples, store, tmp_path):
    name = "sample/chain"
    text = samples.YAML.replace("seeds: [0, 1, 2]", "seeds: [0]\nchain: prune.sparsity")
    entry = samples.entry(tmp_path / "experiments", text=text, name=name)
    plan = samples.planned(entry, tmp_path / "results", ("0.75/squarehead",))
    said: list[str] = []
    with Tracker(plan, {name: entry}, tmp_path / "results", store.uri, said.append) as tracker:
        for event in samples.run(plan, tmp_path / "results"):
            tracker.listen(event)
    assert said == []
    (run,) = store.mirror.client.search_runs([store.mirror.experiment(name)])
    assert any(metric.startswith("before/tune/") for metric in run.data.metrics)
    assert run.data.metrics["tune/loss"] > 0


def test_listening_imports_no_mlflow_before_something_runs():
    script = "import sys, harness.tracking.live; assert not {'torch', 'mlflow', 'pandas'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(live.__file__).parents[2])
