from __future__ import annotations

import contextlib
import errno
import os
import threading
import time

import pytest

from harness.problems import Problem
from harness.runs import execute as execution
from harness.runs.execute import (
    CellDone,
    CellFailed,
    StageDone,
    StageFailed,
    StageProgress,
    StageStarted,
    StageWaiting,
    WeightsFreed,
    execute,
)


def _of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def _labels(cells):
    return sorted(cell.label for cell in cells)


def test_everything_is_told_in_order(fake):
    cells = fake.cells()
    events = fake.run(*cells)
    assert [event.stage for event in _of(events, StageStarted)] == list(fake.plan(*cells).stages)
    assert _labels(events[0].cells) == ["0.5", "0.75"] and events[0].stage.name == "prepare"
    assert [event.progress.done for event in events[1:3]] == [1, 2] and events[1].progress.values == {"loss": 1.0}
    assert all(not event.cached and event.folder.is_dir() for event in _of(events, StageDone))
    done = _of(events, CellDone)
    assert [event.cell.label for event in done] == ["0.5", "0.75"]
    assert done[0].folders == {role: fake.store.open(stage) for role, stage in cells[0].stages.items()}
    assert events.index(done[0]) < len(events) - 1  # as soon as it is complete
    assert set(fake.plan(*cells).states.values()) == {"cached"}


def test_a_stage_is_given_options_parents_and_what_is_not_hashed(fake, tmp_path):
    from dataclasses import replace

    from harness.runs.job import Progress
    from harness.sources import Source

    jobs = []

    class Module:
        VERSION = 1

        @staticmethod
        def run(job):
            jobs.append(job)
            (job.folder / "x").write_text("x")
            yield Progress(1, 1)

    dense = fake.stage("prepare")
    source = Source("hub", "org/name", "main")
    one = replace(
        fake.stage("tune", dense, lr=0.1),
        sources={"teacher": source, "data": Source("generated", "pairs", "1")},
        handling={"checkpoint_every": 5},
    )
    list(execute(fake.plan(fake.cell("a", tune=one)), fake.store, load_stage=lambda name: Module))
    assert jobs[1].options == {"name": "tune", "lr": 0.1, "checkpoint_every": 5}
    assert jobs[1].parents == {"model": fake.store.folder(dense), "teacher": source}


def test_training_stages_are_computed_by_several_processes_where_asked(fake, monkeypatch):
    computed = []

    def run(module, job, team):
        computed.append((module, team))
        yield from fake.load(module.rpartition(".")[2]).run(job)

    monkeypatch.setattr(execution.processes, "run", run)
    team = execution.Processes(2, "fsdp")
    events = list(execute(fake.plan(*fake.cells()), fake.store, load_stage=fake.load, team=team))
    stages = [event.stage for event in _of(events, StageDone)]
    training = [f"harness.stages.{stage.name}" for stage in stages if stage.name in ("prepare", "tune")]
    assert computed == [(module, team) for module in training] and len(training) < len(stages)


def test_the_second_run_computes_nothing(fake):
    cells = fake.cells()
    fake.run(*cells)
    fake.loaded.clear()
    events = fake.run(*cells)
    assert fake.loaded == [] and not _of(events, (StageStarted, StageProgress, StageFailed))
    assert all(event.cached for event in _of(events, StageDone)) and len(_of(events, CellDone)) == 2


def test_only_what_is_missing_is_computed(fake):
    first, second = fake.cells()
    fake.run(first)
    started = [event.stage for event in _of(fake.run(first, second), StageStarted)]
    assert started == [second.stages[role] for role in ("prune", "tune", "evaluate/bleu")]


def test_a_problem_stops_only_what_needs_it(fake):
    cells = fake.cells(fail_at=1, fail="problem")
    first = cells[0]
    events = fake.run(*cells)
    (failed,) = _of(events, StageFailed)
    assert failed.stage == first.stages["tune"] and _labels(failed.cells) == ["0.5"] and not failed.earlier
    assert "step 1: the loss is not finite" in failed.message and "lower lr" in failed.message
    assert "Traceback" not in failed.log.read_text()
    assert [(event.cell.label, event.stage) for event in _of(events, CellFailed)] == [("0.5", failed.stage)]
    assert [event.cell.label for event in _of(events, CellDone)] == ["0.75"]
    assert fake.store.state(first.stages["evaluate/bleu"]) == "missing"
    assert (failed.log.parent / "scratch" / "step").is_file() and not (failed.log.parent / "result").exists()


def test_an_unexpected_error_keeps_its_traceback_in_the_log_alone(fake):
    (failed,) = _of(fake.run(*fake.cells(fail_at=0, fail="crash")), StageFailed)
    assert failed.message == "ZeroDivisionError: division by zero"
    assert "Traceback" in failed.log.read_text() and "raise ZeroDivisionError" in failed.log.read_text()
    assert fake.store.error(failed.stage) == failed.message


def test_a_failed_shared_stage_fails_every_cell_once(fake):
    dense = fake.stage("prepare", fail_at=0, fail="problem")
    cells = [fake.cell(name, prepare=dense, prune=fake.stage("prune", dense, slug=name)) for name in ("a", "b")]
    events = fake.run(*cells)
    assert len(_of(events, StageFailed)) == 1 and [e.cell.label for e in _of(events, CellFailed)] == ["a", "b"]


def test_an_earlier_failure_is_told_again_and_not_rerun(fake):
    cells = fake.cells(fail_at=1, fail="crash")
    (before,) = _of(fake.run(*cells), StageFailed)
    events = fake.run(*cells)
    (failed,) = _of(events, StageFailed)
    assert failed.earlier and failed.message == before.message and failed.log == before.log
    assert not _of(events, StageStarted) and _of(events, CellFailed)


def test_retry_goes_on_from_the_checkpoint(fake):
    cells = fake.cells(fail_at=1, fail="crash")
    fake.run(*cells)
    fake.mend()
    events = fake.run(*cells, retry=True)
    tuned = cells[0].stages["tune"]
    assert [e.progress.done for e in _of(events, StageProgress) if e.stage == tuned] == [2]
    assert len(_of(events, CellDone)) == 2 and fake.store.error(tuned) is None


def test_fail_fast(fake):
    events = fake.run(*fake.cells(fail_at=0, fail="problem"), fail_fast=True)
    assert isinstance(events[-1], CellFailed) and not _of(events, CellDone)


def test_a_damaged_parent_is_refused_and_named(fake, monkeypatch):
    monkeypatch.setattr("harness.runs.freeing.LARGE", 10)  # as if its weights were large
    first, second = fake.cells()
    fake.run(first)
    model = fake.store.folder(first.stages["prepare"]) / "model.bin"
    model.write_text("x" * 64)
    fake.store = type(fake.store)(fake.store.root)
    events = fake.run(first, second)
    (failed,) = _of(events, StageFailed)
    assert failed.stage == second.stages["prune"] and "model.bin is damaged" in failed.message
    assert str(model.parent) in failed.message and "--retry" in failed.message and failed.log is None
    assert fake.store.state(failed.stage) == "missing"
    before = first.stages["tune"].key, (fake.store.folder(first.stages["tune"]) / "model.bin").read_text()
    events = fake.run(first, second, retry=True)
    assert [event.stage.name for event in _of(events, StageStarted)] == ["prepare", "prune", "tune", "evaluate"]
    assert len(_of(events, CellDone)) == 2 and model.read_text() != "x" * 64
    assert before == (first.stages["tune"].key, (fake.store.folder(first.stages["tune"]) / "model.bin").read_text())


def test_a_damaged_evaluation_never_reaches_a_record(fake):
    first, _ = fake.cells()
    fake.run(first)
    (fake.store.folder(first.stages["evaluate/bleu"]) / "model.bin").write_text("x" * 64)
    events = fake.run(first)
    assert "model.bin is damaged" in _of(events, CellFailed)[0].message and not _of(events, CellDone)
    assert _of(fake.run(first, retry=True), CellDone)


@pytest.mark.parametrize(("role", "name"), [("prune", "inner/config.json"), ("tune", "model.bin")])
def test_a_stage_that_is_damaged_without_a_change_of_size_never_reaches_a_record(fake, role, name):
    first, second = fake.cells()
    fake.run(first, second)
    path = fake.store.folder(first.stages[role]) / name
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    fake.store = type(fake.store)(fake.store.root)
    events = fake.run(first, second)
    (failed,) = _of(events, CellFailed)
    assert (failed.cell.label, failed.stage) == ("0.5", first.stages[role])
    assert f"{name} is damaged" in failed.message and "--retry" in failed.message
    assert [event.cell.label for event in _of(events, CellDone)] == ["0.75"]
    assert len(_of(fake.run(first, second, retry=True), CellDone)) == 2


def test_a_truncated_result_is_refused_at_once(fake):
    first, _ = fake.cells()
    fake.run(first)
    (fake.store.folder(first.stages["prune"]) / "model.bin").write_text("x")
    (failed,) = _of(fake.run(first), StageFailed)
    assert failed.stage == first.stages["prune"] and "1 bytes of 64" in failed.message


def test_a_full_disk_loses_nothing(fake):
    cells = fake.cells(fail_at=1, fail="disk")
    events = fake.run(*cells)
    (failed,) = _of(events, StageFailed)
    assert "the disk is full" in failed.message and "MiB free" in failed.message and failed.log is None
    assert fake.store.state(failed.stage) == "interrupted" and [e.cell.label for e in _of(events, CellDone)] == ["0.75"]
    work = fake.store.folder(failed.stage).with_name(fake.store.folder(failed.stage).name + ".partial")
    assert [path.name for path in work.iterdir()] == ["scratch"] and (work / "scratch" / "step").is_file()


@pytest.mark.parametrize("broken", ["write_text", "mkdir"])
def test_a_disk_that_fills_while_the_store_writes(fake, monkeypatch, broken):
    from pathlib import Path

    real = getattr(Path, broken)

    def full(self, *arguments, **options):
        if self.name in ("done.json", "result") and "tune" in self.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, broken, full)
    cells = fake.cells()
    (failed, *_), states = _of(fake.run(*cells), StageFailed), fake.plan(*cells).states
    assert "the disk is full" in failed.message and states[failed.stage] == "interrupted"
    assert all(state != "cached" for stage, state in states.items() if stage.name == "tune")
    monkeypatch.undo()
    fake_again = fake.plan(*cells)
    assert fake_again.states[failed.stage] == "interrupted"


def test_a_store_that_cannot_be_written(fake, tmp_path):
    fake.store.root.write_text("a file")
    events = fake.run(*fake.cells())
    assert len(_of(events, CellFailed)) == 2 and _of(events, StageFailed)[0].stage.name == "prepare"


def test_an_interrupt_is_passed_on_and_loses_nothing(fake):
    cells = fake.cells(steps=3, fail_at=2, fail="interrupt")
    with pytest.raises(KeyboardInterrupt):
        fake.run(*cells)
    tuned = cells[0].stages["tune"]
    assert fake.store.state(tuned) == "interrupted" and fake.store.holder(tuned) is None
    fake.mend()
    events = fake.run(*cells)
    assert [e.progress.done for e in _of(events, StageProgress) if e.stage == tuned] == [3]
    assert len(_of(events, CellDone)) == 2


@pytest.mark.parametrize("heard", [1, 2])
def test_who_stops_listening_gives_the_stage_back(fake, heard):
    cells = fake.cells()
    with contextlib.closing(execute(fake.plan(*cells), fake.store, load_stage=fake.load)) as events:
        assert isinstance([next(events) for _ in range(heard)][-1], StageStarted if heard == 1 else StageProgress)
    assert fake.store.state(cells[0].stages["prepare"]) == "interrupted"


@pytest.mark.parametrize("outcome", ["done", "failed", "dead"])
def test_what_another_process_computes_is_waited_for(fake, outcome):
    first, second = fake.cells()
    fake.run(first)
    held = second.stages["prune"]
    work = fake.store.begin(held)
    events = execute(fake.plan(first, second), fake.store, load_stage=fake.load, poll=0.01)
    told = []
    while not (told and isinstance(told[-1], StageWaiting)):
        told.append(next(events))
    assert told[-1].stage == held and f"process {os.getpid()}" in told[-1].holder
    assert [event.cell.label for event in _of(told, CellDone)] == ["0.5"]

    def settle():
        time.sleep(0.05)
        if outcome == "done":
            (work.folder / "model.bin").write_text("theirs")
            work.finish(1.0, {})
        else:
            work.fail("theirs") if outcome == "failed" else work.release()

    other = threading.Thread(target=settle)
    other.start()
    rest = list(events)
    other.join()
    assert len(_of(rest, StageWaiting)) == 0
    if outcome == "failed":
        assert _of(rest, StageFailed)[0].message == "theirs" and _of(rest, CellFailed)
    else:
        (settled,) = (event for event in _of(rest, StageDone) if event.stage == held)
        assert settled.cached == (outcome == "done") and _of(rest, CellDone)


def test_a_chain_goes_down_with_its_first_link(fake):
    dense = fake.stage("prepare")
    first = fake.stage("tune", fake.stage("prune", dense, slug="a"), fail_at=0, fail="problem")
    second = fake.stage("tune", fake.stage("prune", first, slug="b"), slug="b")
    cells = [fake.cell("a", prepare=dense, tune=first), fake.cell("b", prepare=dense, tune=second)]
    events = fake.run(*cells)
    assert len(_of(events, StageFailed)) == 1
    assert [(e.cell.label, e.stage) for e in _of(events, CellFailed)] == [("a", first), ("b", first)]


def test_stages_are_imported_by_name_on_use(monkeypatch):
    import types

    seen = []
    monkeypatch.setattr(execution.importlib, "import_module", lambda name: seen.append(name) or types.ModuleType(name))
    execution.load_stage("tune")
    assert seen == ["harness.stages.tune"]


def test_problems_of_a_stage_keep_their_words(fake):
    (failed,) = _of(fake.run(*fake.cells(fail_at=0, fail="problem")), StageFailed)
    assert failed.message == str(Problem("the loss is not finite", where="step 1", hint="lower lr"))


def _states(fake, cells):
    """How the stages of some cells stand, by their parts of the store's paths."""
    return {f"{stage.name} {stage.slug}": fake.store.state(stage) for stage in fake.plan(*cells).stages}


def test_a_lean_run_keeps_no_weights_that_all_have_read(fake, heavy):
    cells = fake.cells(heavy)
    seen = []
    for event in execute(fake.plan(*cells), fake.store, load_stage=fake.load, lean=True):
        if isinstance(event, CellDone) and event.cell.label == "0.5":
            seen.append(_states(fake, cells))
    assert seen[0]["prune 0.5"] == "freed" and seen[0]["prepare prepare"] == "cached"  # 0.75 has still to read it
    models = {name: state for name, state in _states(fake, cells).items() if "evaluate" not in name}
    assert set(models.values()) == {"freed"} and len(models) == 5
    fake.loaded.clear()
    events = fake.run(*cells, lean=True)
    assert not fake.loaded and len(_of(events, CellDone)) == 2


def test_a_lean_run_keeps_what_a_failed_stage_would_read_again(fake, heavy):
    cells = fake.cells(heavy, fail_at=1, fail="error")
    fake.run(*cells, lean=True)
    states = _states(fake, cells)
    assert states["prune 0.5"] == states["prepare prepare"] == "cached" and states["prune 0.75"] == "freed"


def test_freed_weights_are_computed_again_for_who_reads_them(fake, heavy):
    cells = fake.cells(heavy)
    fake.run(*cells, lean=True)
    before = fake.store.folder(cells[0].stages["prune"]) / "model.bin"
    state = before.read_text()
    late = fake.stage("evaluate", cells[0].stages["tune"], slug="late")
    more = fake.cell("0.5", **{**cells[0].stages, "evaluate/late": late})
    planned = fake.plan(more)
    assert {stage.name for stage in planned.lacking} == {"prepare", "prune", "tune", "evaluate"}
    fake.loaded.clear()
    events = fake.run(more)
    assert fake.loaded == ["prepare", "prune", "tune", "evaluate"] and len(_of(events, CellDone)) == 1
    assert before.read_text() == state
    assert len([event for event in _of(events, StageDone) if event.cached]) == 1  # the evaluation that was there


def test_a_retry_computes_the_freed_weights_that_it_needs(fake, heavy):
    cells = fake.cells(heavy, fail_at=1, fail="error")
    fake.run(*cells)
    for stage in (cells[0].stages["prepare"], cells[0].stages["prune"]):
        execution.freeing.free(fake.store.folder(stage))
    fake.loaded.clear()
    fake.run(*cells)
    assert not fake.loaded  # the failure is told again; nothing needs the weights
    fake.mend()
    fake.run(*cells, retry=True)
    assert fake.loaded == ["prepare", "prune", "tune", "evaluate"]
    assert fake.store.state(cells[0].stages["evaluate/bleu"]) == "cached"


def test_weights_that_cannot_be_freed_stay(fake, heavy, monkeypatch):
    def refused(folder):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(execution.freeing, "free", refused)
    cells = fake.cells(heavy)
    events = fake.run(*cells, lean=True)
    assert len(_of(events, CellDone)) == 2 and set(_states(fake, cells).values()) == {"cached"}
    assert all("Permission denied" in event.trouble for event in _of(events, WeightsFreed))
    assert {event.stage.name for event in _of(events, WeightsFreed)} == {"prepare", "prune", "tune"}


def test_nothing_is_freed_while_somebody_else_is_computing(fake, heavy):
    cells = fake.cells(heavy)
    other = fake.store.begin(fake.stage("tune", slug="another"))
    kept = _of(fake.run(*cells, lean=True), WeightsFreed)
    assert len(kept) == 5 and all(event.size == 0 and "harness clean" in event.trouble for event in kept)
    other.release()
    assert len(_of(fake.run(*cells, lean=True), WeightsFreed)) == 5


def test_what_is_computed_by_another_is_waited_for_though_its_parent_was_freed(fake, heavy):
    cells = fake.cells(heavy)
    fake.compute(cells[0].stages["prune"])
    work = fake.store.begin(cells[0].stages["tune"])
    execution.freeing.free(fake.store.folder(cells[0].stages["prune"]))
    with contextlib.closing(execute(fake.plan(cells[0]), fake.store, load_stage=fake.load, poll=0.01)) as events:
        assert any(isinstance(event, StageWaiting) for event in iter(lambda: next(events), None))
    work.release()


def test_a_result_stays_until_it_is_computed_again(fake, heavy):
    cells = fake.cells({**heavy}, fail_at=1, fail="error")
    fake.mend()
    fake.run(*cells, lean=True)
    prune = cells[0].stages["prune"]
    said = fake.store.done(prune)
    fake.store.discard(cells[0].stages["tune"])
    seen = []
    for event in execute(fake.plan(*cells), fake.store, load_stage=fake.load):
        if isinstance(event, StageProgress) and event.stage is prune:
            seen.append((fake.store.state(prune), fake.store.done(prune) == said))
    assert seen == [("running", True)] * 2
    assert fake.store.state(prune) == "cached" and fake.store.done(prune)["files"] == said["files"]


def test_a_retry_computes_the_freed_parents_of_what_it_finds_damaged(fake, heavy):
    cells = fake.cells(heavy)
    fake.run(*cells, lean=True)
    tuned = fake.store.folder(cells[0].stages["tune"])
    (tuned / "model.safetensors").write_bytes(b"\xff" * 70)
    fake.loaded.clear()
    events = fake.run(*cells, retry=True)
    assert fake.loaded == ["prepare", "prune", "tune"] and len(_of(events, CellDone)) == 2


def test_an_interrupted_recomputation_keeps_its_scratch(fake, heavy):
    cells = fake.cells(heavy)
    fake.run(*cells, lean=True)
    work = fake.store.begin(cells[0].stages["tune"])
    (work.scratch / "step").write_text("1 x")
    work.release()
    assert len(_of(fake.run(*cells), CellDone)) == 2
    assert (work.scratch / "step").is_file()


def test_a_failed_recomputation_is_told_again_and_not_tried_again(fake, heavy):
    cells = fake.cells(heavy)
    fake.run(*cells, lean=True)
    fake.store.discard(cells[0].stages["tune"])
    fake.store.begin(cells[0].stages["prune"]).fail("no memory")
    fake.loaded.clear()
    failed = _of(fake.run(*cells), StageFailed)
    assert [(event.message, event.earlier) for event in failed if event.stage.name == "prune"] == [("no memory", True)]
    assert "prune" not in fake.loaded
    assert len(_of(fake.run(*cells, retry=True), CellDone)) == 2


def test_a_lean_run_frees_nothing_between_the_stages_of_another(fake, heavy):
    cells = fake.cells(heavy)
    other = execute(fake.plan(*cells), fake.store, load_stage=fake.load)
    with contextlib.closing(other) as events:
        next(event for event in events if isinstance(event, StageDone))
        freed = _of(
            fake.run(
                fake.cell(
                    "dense",
                    prepare=cells[0].stages["prepare"],
                    evaluate__x=fake.stage("evaluate", cells[0].stages["prepare"], slug="dense"),
                ),
                lean=True,
            ),
            WeightsFreed,
        )
        assert [(event.size, "may be reading" in event.trouble) for event in freed] == [(0, True)]
        assert len(_of(list(events), CellDone)) == 2
    assert fake.store.busy() is None and not (fake.store.root / "running").exists()
