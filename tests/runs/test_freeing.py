from __future__ import annotations

import pytest

from harness.problems import Problem
from harness.runs import freeing, shapes, usable


@pytest.fixture
def folder(fake, heavy):
    return fake.compute(fake.stage("tune", **heavy))


def test_weights_go_and_what_is_read_without_them_stays(fake, heavy, folder):
    one = fake.stage("tune", **heavy)
    before, there = shapes.header(folder / "model.safetensors"), freeing.size(folder)
    assert there > 4096 and not freeing.is_freed(folder) and fake.store.state(one) == "cached"
    assert freeing.free(folder) > there - 100
    assert freeing.is_freed(folder) and freeing.size(folder) == 0 and fake.store.state(one) == "freed"
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


def test_what_is_missing_or_cut_off_is_damage_though_weights_were_freed(fake, heavy, folder):
    one = fake.stage("tune", **heavy)
    freeing.free(folder)
    (folder / "model.bin").write_text("short")
    assert fake.store.state(one) == "damaged"
    (folder / "model.safetensors").unlink()
    assert fake.store.state(one) == "damaged"


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
