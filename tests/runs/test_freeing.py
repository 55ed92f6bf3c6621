from __future__ import annotations

import errno
import os

import pytest

from harness.problems import Problem
from harness.runs import freeing, shapes, usable


@pytest.fixture
def folder(fake, heavy):
    return fake.compute(fake.stage("tune", **heavy))


def test_weights_go_and_what_is_read_without_them_stays(fake, heavy, folder):
    one = fake.stage("tune", **heavy)
    before, there = shapes.header(folder / "model.safetensors"), sum(freeing.held(folder).values())
    assert there > 4096 and not freeing.is_freed(folder) and fake.store.state(one) == "cached"
    assert freeing.free(folder) == there - before[1]
    assert freeing.is_freed(folder) and freeing.held(folder) == {} and fake.store.state(one) == "freed"
    assert shapes.header(folder / "model.safetensors") == before
    assert (folder / "model.bin").stat().st_size == 64
    assert fake.store.open(one, every_byte=False) == folder
    with pytest.raises(Problem, match="weights of this result were freed") as problem:
        fake.store.open(one)
    assert "remove this folder" in problem.value.hint
    assert freeing.free(folder) == 0


def test_a_small_file_stays(fake):
    folder = fake.compute(fake.stage("tune", weights=1))
    assert freeing.free(folder) == 0 and not freeing.is_freed(folder)


def test_a_kill_on_the_way_leaves_a_freed_result(fake, heavy, folder, monkeypatch):
    def killed(path, content, replace=freeing.files.replace):
        if path.suffix == ".safetensors":
            raise KeyboardInterrupt
        replace(path, content)

    monkeypatch.setattr(freeing.files, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        freeing.free(folder)
    monkeypatch.undo()
    assert fake.store.state(fake.stage("tune", **heavy)) == "freed"


@pytest.mark.parametrize("name", ["model.bin", "model.safetensors"])
def test_what_is_missing_is_damage_though_weights_were_freed(fake, heavy, folder, name):
    freeing.free(folder)
    (folder / name).unlink()
    assert fake.store.state(fake.stage("tune", **heavy)) == "damaged"


@pytest.mark.parametrize("left", [b"", b"short", b"\xff" * 70])
def test_a_header_that_cannot_be_read_is_damage_that_a_retry_mends(fake, heavy, folder, left):
    one = fake.stage("tune", **heavy)
    freeing.free(folder)
    (folder / "model.safetensors").write_bytes(left)
    with pytest.raises(Problem, match=r"model\.safetensors is damaged.*header"):
        fake.store.open(one, every_byte=False)
    fake.run(fake.cell("only", only=one), retry=True)
    assert fake.store.state(one) == "cached"


def test_a_full_disk_is_freed_all_the_same(fake, heavy, folder, monkeypatch):
    def full(path, content, replace=freeing.files.replace):
        if content:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(path, content)

    before = shapes.header(folder / "model.safetensors")
    monkeypatch.setattr(freeing.files, "replace", full)
    assert freeing.free(folder) > 4000
    assert fake.store.state(fake.stage("tune", **heavy)) == "freed"
    assert (folder / "model.safetensors").stat().st_size == before[1]
    assert shapes.header(folder / "model.safetensors") == before


def test_weights_that_are_no_safetensors_are_not_freed(fake, heavy, folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 5000)
    with pytest.raises(Problem, match="no safetensors"):
        freeing.free(folder)
    assert not freeing.is_freed(folder) and (folder / "model.safetensors").stat().st_size == 5000


def test_a_mapped_file_keeps_its_bytes(folder):
    import mmap

    path = folder / "model.safetensors"
    whole = path.read_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        freeing.free(folder)
        assert bytes(mapped) == whole


def test_a_model_whose_weights_were_freed_says_so(folder):
    (folder / "config.json").write_text('{"model_type": "llama"}')
    freeing.free(folder)
    with pytest.raises(Problem, match="weights of this result were freed"):
        usable.check(folder)
