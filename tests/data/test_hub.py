from __future__ import annotations

import pytest

from harness.data._hub import find, read
from harness.problems import Problem
from harness.sources import Source


def test_reads_one_split_or_several_from_a_mirror(put):
    put("org/text", {"default": {"train": [{"text": "a"}, {"text": "b"}], "test": [{"text": "c"}]}})
    source = find("org/text", known=("train", "test"), splits=["test"])
    assert read(source, "test")["text"] == ["c"]
    assert read(source, "train+test")["text"] == ["a", "b", "c"]


def test_split_is_checked_against_the_data_set_and_then_against_the_mirror(put):
    put("org/text", {"default": {"test": [{"text": "c"}]}})
    with pytest.raises(Problem, match="unknown split of org/text 'tests'"):
        find("org/text", known=("train", "test"), splits=["tests"])
    with pytest.raises(Problem, match="has no split 'train' here"):
        find("org/text", known=("train", "test"), splits=["train+test"])


def test_unreadable_data_are_named_with_what_the_library_said(put, tmp_path):
    folder = put("org/text", {"default": {"test": [{"text": "c"}]}})
    (folder / "default/test.parquet").write_bytes(b"damaged")
    source = find("org/text", known=("test",), splits=["test"])
    with pytest.raises(Problem) as caught:
        read(source, "test")
    assert "'org/text', split 'test', cannot be read: " in str(caught.value) and str(folder) in str(caught.value)


def test_unreachable_hub_is_a_problem_with_a_remedy(monkeypatch):
    import datasets

    def refuse(name, config, **options):
        assert (name, config, options["revision"], options["split"]) == ("org/text", "main", "v2", "test")
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(Problem) as caught:
        read(Source("hub", "org/text", "v2"), "test", config="main")
    assert "ConnectionError: no route" in str(caught.value) and "HARNESS_MIRROR/datasets" in str(caught.value)


def test_progress_bars_come_back(put):
    import datasets

    put("org/text", {"default": {"test": [{"text": "c"}]}})
    before = datasets.are_progress_bars_disabled()
    read(find("org/text", known=("test",), splits=["test"]), "test")
    assert datasets.are_progress_bars_disabled() == before
