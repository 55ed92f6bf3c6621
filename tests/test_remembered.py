from __future__ import annotations

import pytest

from harness import remembered


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_written_is_read_again(folder):
    assert remembered.read("a.json") == {}
    remembered.write("a.json", {"one": [1, "two"]})
    remembered.write("a.json", {"one": [1, "three"]})
    assert remembered.read("a.json") == {"one": [1, "three"]} and [path.name for path in folder.iterdir()] == ["a.json"]


@pytest.mark.parametrize("damage", ["", "{", "3", "null", '["ab"'])
def test_a_damaged_file_is_as_none(folder, damage):
    folder.mkdir()
    (folder / "a.json").write_text(damage)
    assert remembered.read("a.json") == {}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    remembered.write("a.json", {"one": 1})
    assert remembered.read("a.json") == {}
