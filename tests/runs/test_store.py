from __future__ import annotations

import json
import shutil

import pytest

from harness.problems import Problem
from harness.runs import files
from harness.runs.execute import StageProgress, execute
from harness.runs.store import Store


def test_states(fake):
    one, store = fake.stage("tune"), fake.store
    assert store.state(one) == "missing"
    work = store.begin(one)
    assert store.state(one) == "running" and store.holder(one)
    assert store.begin(one) is None
    work.release()
    assert store.state(one) == "interrupted" and store.holder(one) is None
    log = store.begin(one).fail("no\n\nTraceback (most recent call last):\n  ...")
    assert store.state(one) == "failed" and store.error(one) == "no" and store.log(one) == log
    store.clear(one)
    assert store.state(one) == "interrupted" and store.error(one) is None
    folder = fake.compute(one)
    assert store.state(one) == "cached" and folder == store.folder(one)
    (folder / "model.bin").write_text("")
    assert store.state(one) == "damaged"
    store.clear(one)
    assert store.state(one) == "missing"


def test_done_says_what_made_a_result(fake):
    one = fake.stage("tune", fake.stage("prepare"))
    folder = fake.compute(one)
    done = fake.store.done(one)
    assert done["key"] == one.key and done["version"] == 1 and done["options"] == one.options
    assert done["parents"] == {"model": one.parents["model"].key} and done["sources"] == {}
    assert set(done["files"]) == {"model.bin", "inner/config.json"}
    assert done["files"]["inner/config.json"]["size"] == 2
    assert done["seconds"] >= 0 and "packages" in done["environment"]
    assert done["code"].keys() >= {"stages/tune.py", "models/t5.py"}  # of no known family, so all of them
    assert sorted(path.name for path in folder.iterdir()) == ["done.json", "inner", "model.bin"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


@pytest.mark.parametrize("name", ["model.bin", "inner/config.json"])
def test_a_flipped_byte_is_found_and_its_file_named(fake, name):
    one = fake.stage("tune")
    path = fake.compute(one) / name
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    assert fake.store.state(one) == "cached"
    with pytest.raises(Problem, match=f"{name} is damaged") as problem:
        Store(fake.store.root).open(one)
    assert "--retry" in problem.value.hint and str(fake.store.folder(one)) == problem.value.where


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "model.bin").unlink(), "model.bin is missing"),
        (lambda folder: (folder / "model.bin").write_text("short"), "model.bin is damaged: it has 5 bytes of 64"),
        (lambda folder: (folder / "done.json").unlink(), "done.json is missing"),
        (lambda folder: (folder / "done.json").write_text('{"key": 1'), "done.json is damaged: it cannot be read"),
        (lambda folder: (folder / "done.json").write_text("[]"), "done.json is damaged: it cannot be read"),
        (lambda folder: (folder / "done.json").write_bytes(b"\xff"), "done.json is damaged: it cannot be read"),
    ],
)
def test_damage_that_names_and_sizes_tell(fake, damage, said):
    one = fake.stage("tune")
    damage(fake.compute(one))
    assert fake.store.state(one) == "damaged"
    with pytest.raises(Problem, match=said):
        fake.store.open(one)


def test_a_changed_done_is_found(fake):
    one = fake.stage("tune")
    path = fake.compute(one) / "done.json"
    done = json.loads(path.read_text())
    path.write_text(json.dumps({**done, "seconds": 0.5}))
    with pytest.raises(Problem, match=r"done\.json is damaged"):
        fake.store.open(one)


def test_a_result_of_another_stage_is_refused(fake):
    one, other = fake.stage("tune"), fake.stage("tune", steps=3)
    shutil.copytree(fake.compute(one), fake.store.folder(other))
    assert fake.store.state(other) == "damaged"
    with pytest.raises(Problem, match="another stage"):
        fake.store.open(other)


def test_what_is_verified_is_not_read_again_until_it_changes(fake, monkeypatch):
    one, read = fake.stage("tune"), []
    folder = fake.compute(one)
    store = Store(fake.store.root)
    digest = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path.name) or digest(path))
    assert store.open(one) == store.open(one) and len(read) == 2
    (folder / "model.bin").write_text("x" * 64)
    with pytest.raises(Problem):
        store.open(one)


def test_open_of_what_is_not_there(fake):
    with pytest.raises(Problem, match="no such result"):
        fake.store.open(fake.stage("tune"))


def test_scratch_survives_and_the_half_written_does_not(fake):
    one = fake.stage("tune")
    work = fake.store.begin(one)
    (work.scratch / "checkpoint").write_text("12")
    (work.folder / "half").write_text("")
    work.release()
    assert not work.folder.exists()
    work = fake.store.begin(one)
    assert (work.scratch / "checkpoint").read_text() == "12" and not list(work.folder.iterdir())
    (work.folder / "half").write_text("")
    work.fail("no")
    assert (work.scratch / "checkpoint").is_file() and not work.folder.exists()


def test_what_a_kill_left_after_the_rename_is_swept(fake):
    one = fake.stage("tune")
    folder = fake.compute(one)
    left = folder.with_name(folder.name + ".partial")
    (left / "scratch").mkdir(parents=True)
    assert fake.store.state(one) == "cached" and fake.store.begin(one) is None
    assert fake.store.open(one) == folder and not left.exists()


def test_a_stage_that_wrote_nothing_is_no_result(fake):
    work = fake.store.begin(fake.stage("tune"))
    with pytest.raises(RuntimeError, match="wrote nothing"):
        work.finish(1.0, {})
    work.release()


def test_who_lost_the_lease_neither_finishes_nor_removes(fake):
    one = fake.stage("tune")
    work = fake.store.begin(one)
    (work.folder / "model.bin").write_text("mine")
    mine = work.folder.parent / "lease-1.json"
    mine.rename(mine.with_name("lease-2.json"))
    with pytest.raises(Problem, match="took this stage over"):
        work.finish(1.0, {})
    assert work.fail("no") is None
    assert work.folder.is_dir() and fake.store.error(one) is None and fake.store.state(one) == "running"


def test_stale_names_the_sources_that_changed(fake):
    one = fake.stage("tune")
    fake.compute(one)
    assert fake.store.stale(one) == ()
    with (fake.folder / "tune.py").open("a") as file:
        file.write("\n# changed\n")
    assert fake.store.stale(one) == ("stages/tune.py",) and fake.store.state(one) == "cached"


def test_a_source_edited_while_it_runs_is_stale_afterwards(fake):
    one = fake.stage("tune")
    events = execute(fake.plan(fake.cell("only", tune=one)), fake.store, load_stage=fake.load)
    while not isinstance(next(events), StageProgress):
        pass
    with (fake.folder / "tune.py").open("a") as file:
        file.write("\n# changed\n")
    list(events)
    assert fake.store.stale(one) == ("stages/tune.py",)
