"""The measuring stage: files, scores that say where and beside what, and engines that are refused."""

from __future__ import annotations

import json

import pytest

from harness import models, rooms
from harness.metrics import Score
from harness.problems import Problem
from harness.runs.job import Job
from harness.stages import measure

OPTIONS = {"batch": 1, "prompt": 8, "tokens": 4, "repeats": 3, "warmup": 0, "threads": 1, "seed": 0}
AGAINST = "torch_dense:dtype=float32"


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_models):
    made = {}
    for family in ("llama", "whisper"):
        made[family] = tmp_path_factory.mktemp(family)
        models.save(*tiny_models.tiny(family), made[family])
    return made


@pytest.fixture
def run(tmp_path, folders):
    def call(family, **changes):
        options = OPTIONS | {"engine": "torch_csr", "against": AGAINST} | changes
        job = Job(options, {"model": folders[family]}, tmp_path, tmp_path)
        said = list(measure.run(job))
        return said, {path.name: path.read_text() for path in tmp_path.iterdir()}

    return call


def test_it_writes_report_table_and_scores(run):
    said, files = run("llama")
    assert [step.done for step in said] == list(range(1, 7)) and said[-1].total == 6
    assert files.keys() == {"measure.json", "measure.md", "scores.json"}
    scores = {name: Score(**score) for name, score in json.loads(files["scores.json"]).items()}
    report = json.loads(files["measure.json"])
    own = report["engines"]["torch_csr"]
    assert next(iter(scores)) == "speedup"
    assert scores["speedup"].value == own["speedup"]["median"] and scores["speedup"].count == 3
    assert scores["tokens_per_second"].value == pytest.approx(1 / own["step_seconds"]["median"])
    assert scores["same_choice"].value == 1
    assert not scores["first_token_ms"].higher_is_better and scores["speedup"].higher_is_better
    assert "share_of_window" not in scores and "bytes_on_disk" not in scores
    assert report["engines"][AGAINST]["speedup"]["values"] == [1, 1, 1]
    assert "torch_csr" in files["measure.md"] and report["machine"]["cpu"] in files["measure.md"]


def test_a_score_says_what_was_generated_beside_what_and_where(run):
    _, files = run("llama", prompt=6)
    machine = json.loads(files["measure.json"])["machine"]
    protocols = {score["protocol"] for score in json.loads(files["scores.json"]).values()}
    how = f"batch 1, prompt 6, 4 tokens, greedy; over {AGAINST}; median of 3 interleaved rounds"
    assert protocols == {f"{how}; {machine['cpu']}, 1 thread"}


def test_a_peer_is_not_said_to_have_been_interleaved(run):
    report = json.loads(run("llama")[1]["measure.json"])
    report["engines"]["torch_csr"]["alone"] = True
    protocol = measure.scores(report, "torch_csr")["speedup"].protocol
    assert "in a process of its own" in protocol and "interleaved" not in protocol


def test_a_packed_engine_has_its_size_and_its_speed_over_both_dense_ones(run):
    _, files = run("llama", engine="packed:format=bitmask,precision=int8")
    scores, report = json.loads(files["scores.json"]), json.loads(files["measure.json"])
    assert any(name.startswith("packed:format=dense,precision=int8,") for name in report["engines"])
    engine = report["engines"][next(name for name in report["engines"] if "bitmask" in name)]
    assert scores["speedup_own"]["value"] == engine["speedup_own"]["median"]
    assert scores["speedup_torch"]["value"] == scores["speedup"]["value"]
    size = scores["bytes_on_disk"]
    assert size["value"] == report["forms"][0]["bytes_on_disk"] > 0 and not size["higher_is_better"]
    assert "| bitmask int8 |" in files["measure.md"]
    assert (report["forms"][0]["format"], report["forms"][0]["precision"]) == ("bitmask", "int8")


def test_an_engine_that_failed_has_no_scores(run):
    report = json.loads(run("llama")[1]["measure.json"])
    report["engines"]["torch_csr"] = {"alone": True, "failed": "not installed"}
    with pytest.raises(Problem, match="this engine failed: not installed"):
        measure.scores(report, "torch_csr")


def test_a_model_that_hears_is_timed_over_its_window(run):
    _, files = run("whisper", engine=AGAINST)
    scores, own = json.loads(files["scores.json"]), json.loads(files["measure.json"])["engines"][AGAINST]
    assert scores["share_of_window"]["value"] > 0 and not scores["share_of_window"]["higher_is_better"]
    assert "s of noise, 4 tokens" in scores["share_of_window"]["protocol"]
    assert "prompt" not in scores["share_of_window"]["protocol"]
    assert 0 < own["encoder_share"]["median"] < 1
    assert "of the window's time" in files["measure.md"] and "prompt of" not in files["measure.md"]


def test_an_engine_that_cannot_run_here_is_a_problem(run, monkeypatch):
    monkeypatch.setattr(rooms.load("engine", "torch_csr"), "available", lambda: "there is no MKL")
    with pytest.raises(Problem, match="torch_csr cannot run here: there is no MKL"):
        run("llama")
