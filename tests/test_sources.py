from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import sources
from harness.problems import Problem
from harness.sources import Source, card_splits, content_sha, dataset_source, generated, model_source

REAL = os.environ.get("HARNESS_MIRROR")
COMMITS = {"main": "a" * 40, "v2": "b" * 40}
CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: a.jsonl}
  - {split: test, path: b.jsonl}
- config_name: one_file
  data_files: c.jsonl
---
"""


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """No mirror, a network, and caches of our own."""
    monkeypatch.delenv("HARNESS_MIRROR", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    sources._on_hub.cache_clear()
    yield
    sources._on_hub.cache_clear()


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """Stands in for the hub: what it was asked, whether it is gated, and the error that it answers with."""
    import huggingface_hub
    from huggingface_hub import constants

    hub = SimpleNamespace(asked=[], gated=False, error=None, denied=None)

    class HfApi:
        def repo_info(self, repo_id, *, repo_type, revision, timeout):
            hub.asked.append((repo_type, repo_id, revision))
            if hub.error:
                raise hub.error
            return SimpleNamespace(sha=COMMITS.get(revision, revision), gated=hub.gated)

        def auth_check(self, repo_id, *, repo_type):
            if hub.denied:
                raise hub.denied

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "prepared"))
    return hub


def model(root: Path, name: str, text: str = "{}") -> Path:
    folder = root / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text)
    return folder


def dataset(
    root: Path, name: str, card: str = CARD, files: tuple[str, ...] = ("a.jsonl", "b.jsonl", "c.jsonl")
) -> Path:
    folder = root / "datasets" / name
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(card)
    return folder


def refused(call) -> str:
    with pytest.raises(Problem) as caught:
        call()
    return str(caught.value)


def test_folder_comes_before_mirror_and_mirror_before_hub(tmp_path, monkeypatch):
    assert model_source("org/net", "v2") == Source("hub", "org/net", "b" * 40)
    mirrored = model(tmp_path / "mirror", "org/net")
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path / "mirror"))
    found = model_source("org/net")
    assert (found.kind, found.name, found.path) == ("mirror", "org/net", mirrored)
    here = Path("org/net")
    here.mkdir(parents=True)
    (here / "config.json").write_text("{}")
    assert model_source("org/net").kind == "folder"
    assert model_source(str(mirrored)).identity == f"folder:net@{found.revision}"


def test_identity_is_the_content_wherever_it_lies(tmp_path, monkeypatch):
    identities = set()
    for place in ("one", "two"):
        model(tmp_path / place, "org/net", '{"a": 1}')
        monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path / place))
        identities.add(model_source("org/net").identity)
    assert len(identities) == 1
    assert identities.pop().startswith("mirror:org/net@sha256:")


def test_first_mirror_that_holds_the_item_wins(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    model(one, "org/both", "first")
    model(two, "org/both", "second")
    model(two, "org/late")
    monkeypatch.setenv("HARNESS_MIRROR", os.pathsep.join(map(str, (one, two))))
    assert model_source("org/both").path == one / "models/org/both"
    assert model_source("org/late").path == two / "models/org/late"


def test_absent_from_every_mirror_names_item_places_neighbour_and_remedy(tmp_path, monkeypatch):
    model(tmp_path / "one", "org/small-net")
    (tmp_path / "two").mkdir()
    monkeypatch.setenv("HARNESS_MIRROR", os.pathsep.join(str(tmp_path / m) for m in ("one", "two")))
    said = refused(lambda: model_source("org/smal-net"))
    for part in ("'org/smal-net'", "one/models/org/smal-net", "two/models/org/smal-net", "'org/small-net'"):
        assert part in said
    assert "hf download org/smal-net --local-dir" in said
    assert "hf download org/text --repo-type dataset" in refused(lambda: dataset_source("org/text"))


def test_absent_item_that_a_script_of_the_mirror_adds(tmp_path, monkeypatch):
    script = tmp_path / "add_net.py"
    script.write_text("# adds org/net")
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    assert f"python {script}" in refused(lambda: model_source("org/net"))
    assert "add_net" not in refused(lambda: model_source("org/other"))


def test_set_with_no_twin_on_the_hub_is_never_looked_for_there():
    said = refused(lambda: dataset_source("mirror/voices"))
    assert "HARNESS_MIRROR (not set)" in said
    assert "hf download" not in said


def test_a_branch_is_its_commit_asked_once(hub):
    assert model_source("org/net").identity == "hub:org/net@" + "a" * 40
    assert model_source("org/net").revision == "a" * 40
    assert dataset_source("org/net", revision="c" * 40).revision == "c" * 40
    assert hub.asked == [("model", "org/net", "main"), ("dataset", "org/net", "c" * 40)]


def refusal(kind: str) -> Exception:
    from huggingface_hub import errors

    return getattr(errors, kind).__new__(getattr(errors, kind))


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("RepositoryNotFoundError", ["'org/net' is not on the hub", "hf auth login", "HARNESS_MIRROR"]),
        ("RevisionNotFoundError", ["no revision 'main'"]),
        ("GatedRepoError", ["gated", "huggingface.co/org/net", "hf auth login", "HF_HUB_OFFLINE", "HARNESS_MIRROR"]),
    ],
)
def test_what_the_hub_refuses_is_a_problem_even_where_it_is_cached(hub, tmp_path, kind, parts):
    cached(tmp_path, "models--org--net")
    hub.error = refusal(kind)
    said = refused(lambda: model_source("org/net"))
    assert all(part in said for part in parts)


def test_a_gated_item_is_for_those_who_have_access(hub):
    hub.gated = "manual"
    assert model_source("org/net").kind == "hub"
    hub.denied = refusal("GatedRepoError")
    assert "gated" in refused(lambda: model_source("org/other"))


def cached(root: Path, repository: str, commit: str = "d" * 40) -> None:
    """Lays a repository with one commit in the hub's cache, as its main branch."""
    folder = root / "hub" / repository
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)


@pytest.mark.parametrize("why", ["offline", "unreachable"])
def test_without_a_connection_the_hubs_cache_serves(hub, tmp_path, monkeypatch, why):
    if why == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.error = ConnectionError("no route")
    said = refused(lambda: model_source("org/net"))
    assert {"offline": "HF_HUB_OFFLINE is set", "unreachable": "cannot be reached (ConnectionError)"}[why] in said
    assert "hf download org/net" in said and "HARNESS_MIRROR" in said
    cached(tmp_path, "models--org--net")
    assert model_source("org/net") == model_source("org/net", "d" * 40) == Source("hub", "org/net", "d" * 40)
    assert "not here" in refused(lambda: model_source("org/net", "e" * 40))
    assert "--repo-type dataset" in refused(lambda: dataset_source("org/net"))
    (tmp_path / "prepared/org___net/default/0.0.0" / ("f" * 40)).mkdir(parents=True)
    assert dataset_source("org/net", revision="f" * 40).revision == "f" * 40
    assert bool(hub.asked) == (why == "unreachable")


def test_what_was_read_online_is_found_again_offline(hub, tmp_path, monkeypatch):
    cached(tmp_path, "models--org--net")
    before = model_source("org/net")
    (tmp_path / "hub/models--org--net/snapshots" / before.revision).mkdir()  # loaded by commit: no branch noted
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert model_source("org/net") == before


def test_mistaken_paths(tmp_path, monkeypatch):
    assert "there is no folder './gone'" in refused(lambda: model_source("./gone"))
    (tmp_path / "notes").mkdir()
    assert "no config.json" in refused(lambda: model_source(str(tmp_path / "notes")))
    assert "empty" in refused(lambda: dataset_source(str(tmp_path / "notes")))
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path / "nowhere"))
    assert "nowhere" in refused(lambda: model_source("org/net"))


def test_split_and_configuration_are_checked_against_the_card(tmp_path, monkeypatch):
    folder = dataset(tmp_path, "org/text")
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    assert card_splits(folder) == {"main": ("train", "test"), "one_file": ("train",)}
    assert dataset_source("org/text", "main", ["train+test"]).path == folder
    said = refused(lambda: dataset_source("org/text", "main", ["train+tests"]))
    assert "'tests'" in said and "did you mean 'test'" in said and "train, test" in said
    assert "one_file" in refused(lambda: dataset_source("org/text", "onefile"))
    assert "there is: train; test is in main" in refused(lambda: dataset_source("org/text", "one_file", ["test"]))


def test_a_card_that_changes_is_read_anew(tmp_path):
    folder = dataset(tmp_path, "org/text")
    assert card_splits(folder)["one_file"] == ("train",)
    (folder / "README.md").write_text(CARD.replace("one_file", "other"))
    assert card_splits(folder) == {"main": ("train", "test"), "other": ("train",)}


def test_a_file_that_the_card_names_and_that_is_not_here_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    folder = dataset(tmp_path, "org/text", files=("a.jsonl",))
    said = refused(lambda: dataset_source("org/text", "main", ["train"]))
    assert "org/text (main): the split 'test' has no file 'b.jsonl' here" in said and str(folder) in said
    assert f"hf download org/text --repo-type dataset --local-dir {folder}" in said
    assert dataset_source("org/text", "main", ["train"], alone=True).path == folder
    assert "'b.jsonl'" in refused(lambda: dataset_source("org/text", "main", ["test"], alone=True))
    assert "'c.jsonl'" in refused(lambda: dataset_source("org/text", "one_file"))


@pytest.mark.parametrize(
    ("files", "pattern", "there"),
    [
        (("data/train-0.parquet",), "data/train-*.parquet", True),
        (("data/test-0.parquet",), "data/train-*.parquet", False),
        (("data/deep/a.json.gz",), "data/**", True),
        ((), "data/**", False),
        ((), "https://elsewhere/a.parquet", True),
    ],
)
def test_files_are_looked_for_by_the_cards_patterns(tmp_path, monkeypatch, files, pattern, there):
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    names = f"[{{split: train, path: [{pattern!r}]}}]"
    card = f"---\nconfigs: [{{config_name: default, data_files: {names}}}]\n---\n"
    folder = dataset(tmp_path, "org/text", card, files)
    if there:
        assert dataset_source("org/text", splits=["train"]).path == folder
    else:
        assert repr(pattern) in refused(lambda: dataset_source("org/text", splits=["train"]))


def test_where_no_configuration_is_asked_for_that_of_the_library_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    folder = dataset(tmp_path, "org/text", CARD.replace("one_file", "default"), ("c.jsonl",))
    assert dataset_source("org/text", splits=["train"]).path == folder


def test_the_files_of_a_source_are_its_own_or_in_the_hubs_cache(tmp_path):
    folder = model(tmp_path, "org/net")
    assert sources.snapshot(model_source(str(folder))) == folder
    cached(tmp_path, "models--org--net")
    assert sources.snapshot(Source("hub", "org/net", "d" * 40)).parent.parent.name == "models--org--net"
    assert sources.snapshot(Source("hub", "org/net", "e" * 40)) is None
    assert sources.snapshot(Source("generated", "pairs", "1")) is None


def test_card_without_configurations_promises_nothing(tmp_path, monkeypatch):
    folder = dataset(tmp_path, "org/plain", "# no head")
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    assert card_splits(folder) == {}
    assert dataset_source("org/plain", "any", ["any"]).path == folder


@pytest.mark.parametrize("head", ["a: [", "configs: {a: 1}", "configs: 3", "configs: [{data_files: a}]", "text"])
def test_a_broken_card_is_a_problem(tmp_path, head):
    folder = dataset(tmp_path, "org/text", f"---\n{head}\n---\n")
    assert f"{folder / 'README.md'}: the YAML head of this card is broken" in refused(lambda: card_splits(folder))


def test_content_sha_sees_names_and_bytes_but_not_hidden_files(tmp_path):
    folder = model(tmp_path, "org/net", "one")
    seen = [content_sha(folder)]
    (folder / "config.json").write_text("two")
    seen.append(content_sha(folder))
    (folder / "config.json").rename(folder / "other.json")
    seen.append(content_sha(folder))
    assert len(set(seen)) == 3
    (folder / ".cache").mkdir()
    (folder / ".cache/lock").write_text("x")
    (folder / ".hidden").write_text("x")
    (folder / "link").symlink_to(tmp_path)
    assert content_sha(folder) == seen[-1]


def test_content_sha_is_of_sorted_paths_and_follows_links_to_files(tmp_path):
    folder, there = tmp_path / "data", tmp_path / "blob"
    there.write_text("c")
    for name in ("b.txt", "a/x.txt", "a.txt", "a/.git/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "c.txt").symlink_to(there)
    contents = {"a.txt": "a.txt", "a/x.txt": "a/x.txt", "b.txt": "b.txt", "c.txt": "c"}
    lines = [f"{name}\0{hashlib.sha256(text.encode()).hexdigest()}\n" for name, text in contents.items()]
    assert content_sha(folder) == f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    assert str(there) in json.loads((tmp_path / "cache/sha256.json").read_text())


def test_content_sha_reads_a_file_once(tmp_path, monkeypatch):
    folder = model(tmp_path, "org/net", "one")
    first = content_sha(folder)

    def read_again(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(sources.hashlib, "file_digest", read_again)
    assert content_sha(folder) == first
    os.utime(folder / "config.json", ns=(1, 1))
    with pytest.raises(AssertionError, match="read again"):
        content_sha(folder)


@pytest.mark.parametrize("damage", ["{", "[]", '{"%s": 3}'])
def test_content_sha_survives_a_damaged_memory(tmp_path, damage):
    folder = model(tmp_path, "org/net", "one")
    first = content_sha(folder)
    memory = tmp_path / "cache/sha256.json"
    memory.write_text(damage % (folder / "config.json") if "%" in damage else damage)
    assert content_sha(folder) == first
    assert str(folder / "config.json") in json.loads(memory.read_text())


def test_generated_revision_carries_the_packages_it_is_drawn_from():
    source = generated("pairs", "3", "babel")
    assert source.identity == f"generated:pairs@3+babel-{importlib.metadata.version('babel')}"


def test_import_and_lookup_are_light(tmp_path):
    code = (
        "import sys; from harness.sources import model_source; model_source(sys.argv[1]);"
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas', 'huggingface_hub') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(model(tmp_path, "org/net"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.mirror
@pytest.mark.skipif(not REAL, reason="HARNESS_MIRROR is not set")
def test_real_mirror_behind_one_of_our_own(tmp_path, monkeypatch):
    ours = dataset(tmp_path / "ours", "openai/gsm8k")
    monkeypatch.setenv("HARNESS_MIRROR", os.pathsep.join((str(tmp_path / "ours"), REAL)))
    assert dataset_source("openai/gsm8k").path == ours
    assert dataset_source("bentrevett/multi30k", splits=["train", "test"]).kind == "mirror"
    whisper = model_source("openai/whisper-tiny.en")
    assert whisper == model_source("openai/whisper-tiny.en") and whisper.path.is_dir()
    assert "did you mean 'openai/whisper-tiny.en'" in refused(lambda: model_source("openai/whisper-tiny"))
    assert "there is: validation" in refused(lambda: dataset_source("wmt/wmt16", "de-en", ["train"]))
    if not any((Path(m) / "models/HuggingFaceTB").is_dir() for m in REAL.split(os.pathsep)):
        assert "add_smollm2.py" in refused(lambda: model_source("HuggingFaceTB/SmolLM2-135M-Instruct"))


@pytest.mark.parametrize("name", ["a\0b", "org/" + "a" * 5000, "a" * 97, "~nobody-here/model"])
@pytest.mark.parametrize("mirror", [True, False])
def test_what_can_be_no_name_is_a_problem(tmp_path, monkeypatch, hub, name, mirror):
    if mirror:
        monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    with pytest.raises(Problem, match="there is no folder") as caught:
        model_source(name)
    assert "org/name" in caught.value.hint and hub.asked == []
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("revision", ["a\0b", "a" * 5000])
def test_what_can_be_no_revision_is_a_problem(hub, revision):
    with pytest.raises(Problem, match="is no revision"):
        model_source("org/a", revision)
    assert hub.asked == []
