from __future__ import annotations

import json

import pytest

from harness import exported
from harness.problems import Problem


@pytest.fixture
def folder(tmp_path):
    for name in (exported.PACKED, exported.REST, "config.json"):
        (tmp_path / name).write_text(name)
    exported.describe(tmp_path, {"format": "bitmask", "precision": "int8"})
    return tmp_path


def rewrite(folder, **said):
    path = folder / exported.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))


def test_what_was_written_is_verified(folder):
    (folder / "notes.txt").write_text("a file of one's own beside it does no harm")
    with exported.verifying(folder) as (said, files):
        assert (said["version"], said["format"], said["precision"]) == (exported.VERSION, "bitmask", "int8")
        assert {name: bytes(held) for name, held in files.items()} == {name: name.encode() for name in files}
        assert set(files) == set(said["xxh3"])
    assert exported.is_packed(folder)


@pytest.mark.parametrize(("format", "packed"), [("hf-dense", False), ("onnx", False), ("auto", True)])
def test_which_forms_are_packed(folder, format, packed):
    rewrite(folder, format=format)
    assert exported.is_packed(folder) == packed


@pytest.mark.parametrize("name", [exported.PACKED, exported.REST, "config.json"])
def test_a_changed_file_is_the_cause_of_what_it_leads_to(folder, name):
    (folder / name).write_text(name.upper())
    with pytest.raises(Problem, match="not what was exported") as problem, exported.verifying(folder):
        raise ValueError("what reading it ended with")
    assert str(folder / name) in str(problem.value)


@pytest.mark.parametrize("name", [exported.PACKED, exported.REST, "config.json"])
def test_a_file_that_is_lost_or_has_no_sum_is_named(folder, name):
    sums = exported.described(folder)["xxh3"]
    rewrite(folder, xxh3={other: sums[other] for other in sums if other != name})
    with pytest.raises(Problem, match=f"{name} is not here, or has no sum"), exported.verifying(folder):
        pass
    rewrite(folder, xxh3=sums)
    (folder / name).unlink()
    with pytest.raises(Problem, match=f"{name} is not here"), exported.verifying(folder):
        pass


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": "bitmask", "precision": "int8"}', "version none; this harness reads version 2"),
        ('{"version": 1, "format": "bitmask"}', "version 1; this harness reads version 2"),
        ('{"version": 2, "format": "bitmask", "precision": "int8"}', "lacks format, precision or xxh3"),
        ('{"version": 2, "format": 1, "precision": "int8", "xxh3": {}}', "lacks format, precision or xxh3"),
        ('{"version": 2, "format": "", "precision": "", "xxh3": {}, "left_out": "abc"}', "left_out is no count"),
        ("[" * 100_000, "cannot be read"),
        ("[1]", "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_another_version_and_damage(folder, content, said):
    (folder / exported.FILE).write_text(content)
    with pytest.raises(Problem, match=said) as problem:
        exported.is_packed(folder)
    assert "export the model again" in str(problem.value)


def test_what_is_compared_is_what_is_given_whatever_takes_the_files_place(folder):
    with exported.verifying(folder) as (_, files):
        (folder / "other").write_text("another export")
        (folder / "other").replace(folder / exported.REST)
    assert bytes(files[exported.REST]) == exported.REST.encode()
