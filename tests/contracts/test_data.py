"""What every file of the data room must keep, whatever it is called; a new file is picked up by itself."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys

import pytest

from harness.problems import Problem
from harness.rooms import REQUIRED, ROOMS, load
from harness.sources import Source

COLUMNS = {
    "translation": {"source", "target"},
    "speech": {"audio", "text"},
    "pair": {"source", "target"},
    "text": {"text"},
    "reasoning": {"question", "answer"},
    "instruction": {"instruction", "response"},
    "image": {"image", "label", "classes"},
}
EVERY = ROOMS["data"].names()
NAMES = tuple(name for name in EVERY if all(o.default != REQUIRED for o in ROOMS["data"].method(name).options.values()))
"""Those that can be read without an option; a file of one's own needs its path, and its own test asks the rest."""


def is_generated(name: str) -> bool:
    try:
        return load("data", name).source().kind == "generated"
    except Problem:
        return False


GENERATED = tuple(name for name in NAMES if is_generated(name))
SAMPLE = 40


def digests(names: tuple[str, ...]) -> dict[str, str]:
    """Digests of every split's rows; of sounds, which are slow to resample, and of pictures the first few."""
    found = {}
    for name in names:
        module = load("data", name)
        for split in module.SPLITS:
            digest, rows = hashlib.sha256(), module.rows(split)
            for index in range(min(SAMPLE, len(rows)) if module.KIND in ("speech", "image") else len(rows)):
                row = rows[index]
                for column in sorted(row):
                    value = row[column]
                    digest.update(value.tobytes() if hasattr(value, "tobytes") else str(value).encode())
            found[f"{name} {split}"] = digest.hexdigest()
    return found


@pytest.mark.parametrize("name", EVERY)
def test_kind_splits_and_help_are_read_without_importing(name):
    method = ROOMS["data"].method(name)
    assert method.constants["KIND"] in COLUMNS
    splits = method.constants["SPLITS"]
    assert isinstance(splits, tuple) and splits and all(isinstance(split, str) for split in splits)
    assert method.needs == ("split",)
    assert method.summary.endswith(".") and len(method.summary) > 20


@pytest.mark.parametrize("name", EVERY)
def test_source_takes_the_options_of_rows(name):
    module = load("data", name)
    options = [
        {
            p.name: (p.default, p.annotation)
            for p in inspect.signature(f).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        }
        for f in (module.source, module.rows)
    ]
    assert options[0] == options[1]


@pytest.mark.parametrize("name", NAMES)
def test_unknown_split_is_a_problem_that_lists_the_splits(name):
    module = load("data", name)
    for call in (lambda: module.rows("trainn"), lambda: module.source(["trainn"])):
        with pytest.raises(Problem) as caught:
            call()
        assert all(split in str(caught.value) for split in module.SPLITS)


@pytest.mark.parametrize("name", NAMES)
def test_source_is_stable_or_says_where_it_looked(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    module = load("data", name)
    if name in GENERATED:
        assert module.source() == module.source()
        assert isinstance(module.source(), Source) and module.source().identity.startswith(f"generated:{name}@")
    else:
        with pytest.raises(Problem) as caught:
            module.source()
        assert str(tmp_path / "datasets") in str(caught.value)


def test_sources_are_light():
    code = (
        "import sys\nfrom harness.rooms import load\nfrom harness.problems import Problem\n"
        "for name in sys.argv[1:]:\n"
        "    try: load('data', name).source()\n"
        "    except Problem: pass\n"
        "heavy = 'torch transformers datasets pandas mlflow scipy soundfile numpy'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *NAMES], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", GENERATED)
def test_generated_rows_have_the_columns_of_their_kind(name):
    module = load("data", name)
    for split in module.SPLITS:
        rows = module.rows(split)
        assert len(rows) > 0 and len(list(rows)) == len(rows)
        for row in (rows[0], rows[-1]):
            assert set(row) == COLUMNS[module.KIND]
            assert all(row[column].strip() for column in set(row) - {"audio", "image", "label", "classes"})
            if module.KIND == "image":
                assert row["label"] in range(len(row["classes"])) and len(set(row["classes"])) == len(row["classes"])
                assert row["image"].shape[2:] == (3,) and row["image"].dtype == "uint8"


@pytest.mark.parametrize("name", GENERATED)
def test_generated_splits_share_no_row(name):
    module = load("data", name)
    first = {"translation": "source", "speech": "text", "text": "text", "reasoning": "question", "image": "image"}
    first["instruction"] = "instruction"
    found = [row[first[module.KIND]] for split in module.SPLITS for row in module.rows(split)]
    texts = [each.tobytes() if module.KIND == "image" else each for each in found]
    assert len(set(texts)) == len(texts)


def test_generated_rows_are_the_same_bytes_in_every_process():
    done = subprocess.run(
        [sys.executable, __file__, *GENERATED],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Tokyo"},
    )
    found = json.loads(done.stdout)
    assert found == digests(GENERATED)
    assert len(set(found.values())) == len(found) >= 3 * len(GENERATED)
    assert hashlib.sha256(b"").hexdigest() not in found.values()


if __name__ == "__main__":
    print(json.dumps(digests(tuple(sys.argv[1:]))))
