"""The evaluation stage: predictions and scores on disk, a kill at any place, and numbers that are none."""

from __future__ import annotations

import json

import pytest
import torch

from harness import models, rooms
from harness.problems import Problem
from harness.runs.job import Job
from harness.stages import evaluate

PAIRS = rooms.bind("data", "cldr_pairs")("test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder of a T5 that has learnt a little, so that it does not only repeat its padding token."""
    rows = [PAIRS[i] for i in range(40)]
    model, tokenizer = rooms.load("model", "t5").tiny([text for row in rows for text in row.values()], seed=1)
    sources, targets = ([row[column] for row in rows] for column in ("source", "target"))
    batch = tokenizer(sources, text_target=targets, return_tensors="pt", padding=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(10):
        labels = batch["labels"].masked_fill(batch["labels"] == tokenizer.pad_token_id, -100)
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    path = tmp_path_factory.mktemp("model")
    models.save(model, tokenizer, path)
    return path


@pytest.fixture
def job(folder, tmp_path):
    """Makes a job in new folders; `scratch` may be that of another one."""

    def make(name="first", scratch=None, **changes):
        options = {
            "task": str(rooms.resolve("task", "translation:beams=1,max_new_tokens=6")),
            "data": str(rooms.resolve("data", "cldr_pairs")),
            "split": "test",
            "metric": str(rooms.resolve("metric", "bleu")),
            "limit": 7,
            "batch_size": 3,
        }
        paths = [tmp_path / name / part for part in ("folder", "scratch")]
        for path in paths:
            path.mkdir(parents=True)
        return Job({**options, **changes}, {"model": folder}, paths[0], scratch or paths[1])

    return make


def files(job):
    return {path.name: path.read_bytes() for path in job.folder.iterdir()}


def test_predictions_and_scores_are_written(job):
    one = job()
    reports = list(evaluate.run(one))
    assert [(r.done, r.total, r.unit) for r in reports] == [(i, 7, "sample") for i in range(1, 8)]
    rows = [json.loads(line) for line in files(one)["predictions.jsonl"].splitlines()]
    assert [row["reference"] for row in rows] == [PAIRS[i]["target"] for i in range(7)]
    scores = json.loads(files(one)["scores.json"])
    expected = rooms.bind("metric", "bleu")(rows)["bleu"]
    assert scores["bleu"]["value"] == expected.value and scores["bleu"]["count"] == 7
    assert set(scores["bleu"]) == {"value", "stderr", "count", "protocol", "higher_is_better"}


def test_the_protocol_says_metric_task_data_batch_and_dtype(job):
    one = job()
    list(evaluate.run(one))
    protocol = json.loads(files(one)["scores.json"])["bleu"]["protocol"]
    signature, _, setting = protocol.partition("; ")
    assert signature.startswith("sacrebleu nrefs:1|case:mixed")
    assert setting.startswith("translation:source_language=English") and "beams=1,max_new_tokens=6" in setting
    assert setting.endswith(" on cldr_pairs:size=4000 test, first 7, batch 3, float32")
    assert "max_target" not in setting  # it changes training only


@pytest.mark.parametrize("killed", [1, 3, 5, 7])
def test_a_killed_evaluation_goes_on_by_sample_and_gives_the_same_bytes(job, killed):
    whole, broken = job("whole"), job("broken")
    list(evaluate.run(whole))
    steps = evaluate.run(broken)
    for _ in range(killed):
        next(steps)
    steps.close()
    with (broken.scratch / "predictions.jsonl").open("ab") as file:
        file.write(b'{"source": "half a li')
    again = job("again", scratch=broken.scratch)
    assert [report.done for report in evaluate.run(again)] == list(range(killed + 1, 8))
    assert files(again) == files(whole)


def test_all_rows_where_there_is_no_limit(job, monkeypatch):
    def two(split):
        return [{"source": "1 hour", "target": "1 Stunde\u2028"}, {"source": "2 hours", "target": "2 Stunden"}]

    bind = rooms.bind
    monkeypatch.setattr(rooms, "bind", lambda kind, *more: two if kind == "data" else bind(kind, *more))
    one = job(limit=None)
    assert [report.total for report in evaluate.run(one)] == [2, 2]
    assert json.loads(files(one)["scores.json"])["bleu"]["count"] == 2


def test_a_score_that_is_no_number_is_a_problem_that_names_the_evaluation(job, tmp_path):
    model, tokenizer = rooms.load("model", "llama").tiny(["a b c"], seed=0)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    models.save(model, tokenizer, tmp_path / "nan")
    task = str(rooms.resolve("task", "language_modelling:window=32"))
    metric, data = "perplexity", str(rooms.resolve("data", "prose"))
    one = job(task=task, metric=metric, data=data, limit=20)
    one = Job(one.options, {"model": tmp_path / "nan"}, one.folder, one.scratch)
    with pytest.raises(Problem, match=r"language_modelling:.* on prose.*: the score perplexity is (nan|inf)"):
        list(evaluate.run(one))
    assert files(one) == {}


def test_few_shot_examples_come_from_the_training_split(job):
    model, tokenizer = rooms.load("model", "mpt").tiny(["a b c"], seed=0)
    options = job().options | {"task": "reasoning:shots=2,max_new_tokens=2", "data": "arithmetic", "limit": 1}
    train = rooms.bind("data", "arithmetic")("train")
    asked = []

    class Listening:
        def __call__(self, text, **more):
            asked.append(text)
            return tokenizer(text, **more)

        def __getattr__(self, name):
            return getattr(tokenizer, name)

    list(evaluate.predict(options, model, Listening(), 0))
    assert asked[0].startswith(train[0]["question"] + train[0]["answer"] + "\n\n" + train[1]["question"])


def test_a_zero_shot_task_brings_its_own_data(job, tmp_path):
    model, tokenizer = rooms.load("model", "llama").tiny(["a b c"], seed=0)
    models.save(model, tokenizer, tmp_path / "llama")
    one = job(task="zero_shot:tasks=tiny_cldr", data=None, metric="accuracy", limit=4)
    one = Job(one.options, {"model": tmp_path / "llama"}, one.folder, one.scratch)
    assert [report.total for report in evaluate.run(one)] == [4] * 4
    scores = json.loads(files(one)["scores.json"])
    assert list(scores) == ["accuracy", "tiny_cldr/acc", "tiny_cldr/acc_norm"]
    assert scores["accuracy"]["protocol"].endswith("; zero_shot:tasks=tiny_cldr,shots=none, first 4, batch 3, float32")
