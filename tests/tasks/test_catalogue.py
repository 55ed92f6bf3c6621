"""The catalogue of lm-eval's tasks: what is read of them without importing lm-eval, and how they come to a mirror."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.problems import Problem
from harness.tasks import _catalogue


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(cache))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Makes a mirrored data set of a name, with the splits of its configurations; two folders stand in for one."""
    roots = [tmp_path / "one", tmp_path / "two"]

    def add(name, configs, root=1):
        folder = roots[root] / "datasets" / name
        folder.mkdir(parents=True)
        lines = ["---", "configs:"]
        for config, splits in configs.items():
            lines += [f"- config_name: {config}", "  data_files:"]
            for split in splits:
                lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
                (folder / config).mkdir(exist_ok=True)
                (folder / config / f"{split}.parquet").touch()
        (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
        return folder

    for root in roots:
        root.mkdir()
    monkeypatch.setenv("HARNESS_MIRROR", f"{roots[0]}:{roots[1]}")
    return add


def test_configurations_are_lm_evals_own():
    from lm_eval.tasks._yaml_loader import load_yaml

    for entry in _catalogue.entries("arc_challenge+piqa+blimp_adjunct_island+mmlu_anatomy"):
        theirs = load_yaml(entry.path, resolve_func=False)
        plain = {key: value for key, value in entry.config.items() if isinstance(value, str | int | type(None))}
        assert entry.config.keys() == theirs.keys() and entry.config["task"] == entry.name
        assert all(str(theirs[key]).endswith(str(value)) for key, value in plain.items())


def test_names_are_remembered_and_a_damaged_memory_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    (entry,) = _catalogue.entries("piqa")
    (memory,) = tmp_path.iterdir()
    names = json.loads(memory.read_text())
    assert len(names) > 10_000 and entry.path.as_posix().endswith(names["piqa"])
    monkeypatch.setattr(_catalogue, "_scan", lambda folder: pytest.fail("read again"))
    assert _catalogue.entries("piqa") == [entry]
    monkeypatch.setattr(_catalogue, "_scan", lambda folder: {"piqa": names["piqa"]})
    memory.write_text("{")
    assert _catalogue.entries("piqa") == [entry]


def test_our_suites_need_no_lm_eval(monkeypatch):
    monkeypatch.setattr(_catalogue, "_index", lambda: pytest.fail("lm-eval was looked at"))
    entries = _catalogue.entries("tiny_cldr+tiny_arithmetic+tiny_prose")
    sources = [_catalogue.source(entry) for entry in entries]
    assert [source.name for source in sources] == ["cldr_pairs", "arithmetic", "prose"]
    assert all(source.kind == "generated" for source in sources)
    assert len({source.revision.partition("+sha256:")[2] for source in sources}) == 3
    assert [_catalogue.judged(*pair) for pair in zip(entries, sources, strict=True)] == ["test"] * 3


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ("arc_eazy", "unknown zero-shot task 'arc_eazy'\n  did you mean 'arc_easy'"),
        ("tiny_cdlr", "did you mean 'tiny_cldr'"),
        ("blimp", "lm-eval's: a single task, not a group"),
        ("piqa+piqa", "'piqa' is given twice"),
        ("wikitext", "'wikitext' is not judged by accuracy (loglikelihood_rolling: word_perplexity"),
        ("gsm8k", "'gsm8k' is not judged by accuracy (generate_until: exact_match)"),
        ("squadv2", "'squadv2' is not judged by accuracy (Python"),
    ],
)
def test_what_cannot_be_a_zero_shot_task(tasks, said):
    if tasks == "squadv2":
        assert "class" in _catalogue._load(Path(_catalogue._index()["squadv2"]))
    with pytest.raises(Problem) as caught:
        _catalogue.entries(tasks)
    assert said in str(caught.value)


def test_splits_that_a_mirror_lacks_are_left_out(mirror):
    folder = mirror("allenai/ai2_arc", {"ARC-Easy": ["test"], "ARC-Challenge": ["validation", "train"]})
    easy, hard = _catalogue.entries("arc_easy+arc_challenge")
    source = _catalogue.source(easy)
    assert (source.kind, source.path) == ("mirror", folder) and source.revision.startswith("sha256:")
    expected = {"dataset_path": str(folder), "training_split": None, "validation_split": None}
    assert _catalogue.overrides(easy, source) == expected
    assert _catalogue.judged(easy, source) == "test"
    assert _catalogue.overrides(hard, source) == {"dataset_path": str(folder), "test_split": None}
    assert _catalogue.judged(hard, source) == "validation"


def test_data_without_the_judged_split_are_a_problem(mirror):
    mirror("baber/piqa", {"default": ["train"]})
    (entry,) = _catalogue.entries("piqa")
    with pytest.raises(Problem, match=r"'piqa' is judged on validation, not here\s+there is: train"):
        _catalogue.source(entry)


def test_absent_data_are_a_problem_that_names_both_folders(mirror):
    (entry,) = _catalogue.entries("piqa")
    with pytest.raises(Problem, match="'baber/piqa' is not here") as caught:
        _catalogue.source(entry)
    assert "/one/datasets" in str(caught.value) and "/two/datasets" in str(caught.value)


def test_the_hub_is_read_at_its_commit(monkeypatch):
    monkeypatch.delenv("HARNESS_MIRROR", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (entry,) = _catalogue.entries("piqa")
    monkeypatch.setattr("harness.sources._on_hub", lambda *asked: ("a" * 40, ""))
    source = _catalogue.source(entry)
    assert source.kind == "hub" and _catalogue.overrides(entry, source) == {"dataset_kwargs": {"revision": "a" * 40}}
    assert _catalogue.judged(entry, source) == "validation"


def test_every_suite_names_its_data_and_its_split():
    for path in _catalogue.SUITES.glob("*.yaml"):
        (entry,) = _catalogue.entries(path.stem)
        assert entry.path == Path(path) and entry.config["task"] == path.stem
        assert _catalogue.source(entry).kind == "generated"


def test_mmlu_stands_for_its_subjects():
    names = [entry.name for entry in _catalogue.entries("arc_easy+mmlu")]
    assert names[0] == "arc_easy" and len(names) == 58 and "mmlu_anatomy" in names
