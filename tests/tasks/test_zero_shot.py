"""Zero-shot: the same numbers as `lm_eval.simple_evaluate`, row by row, on our suites and on a mirror."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys

import pytest
import yaml

from harness.data._stories import OPERATORS
from harness.metrics import accuracy
from harness.problems import Problem
from harness.tasks import _catalogue, zero_shot
from harness.tasks.suites import choices

pytestmark = pytest.mark.usefixtures("quick_lm_eval")
SUITES = "tiny_cldr+tiny_arithmetic+tiny_prose"


def simple_evaluate(model, tokenizer, tasks, manager, **more):
    """lm-eval's own entry, its samples as (task, document) -> acc, acc_norm."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=4)
    out = lm_eval.simple_evaluate(lm, tasks=tasks, task_manager=manager, bootstrap_iters=0, **more)
    samples = {(n, s["doc_id"]): (s["acc"], s["acc_norm"]) for n, found in out["samples"].items() for s in found}
    return out["results"], samples


def seen(rows):
    return {(row["task"], row["doc"]): (row["acc"], row["acc_norm"]) for row in rows}


@pytest.mark.parametrize("family", ["llama", "mpt", "t5"])
def test_equals_simple_evaluate(family, request):
    from lm_eval.tasks import TaskManager

    model, tokenizer = request.getfixturevalue(family)
    rows = list(zero_shot.predict(model, tokenizer, None, 0, 4, 10, tasks=SUITES))
    manager = TaskManager(include_path=str(_catalogue.SUITES), include_defaults=False)
    results, samples = simple_evaluate(model, tokenizer, SUITES.split("+"), manager, limit=10)
    assert seen(rows) == samples and len(rows) == 30
    assert len({row["acc"] for row in rows}) == 2, "a test that only sees one answer cannot fail"
    scores = accuracy.score(rows)
    for task in SUITES.split("+"):
        assert scores[f"{task}/acc"].value == pytest.approx(100 * results[task]["acc,none"])
        assert scores[f"{task}/acc_norm"].value == pytest.approx(100 * results[task]["acc_norm,none"])


def test_rows_say_their_protocol_and_the_tokenizer_stays_as_it_was(llama):
    model, tokenizer = llama
    before = tokenizer.pad_token
    predictions = zero_shot.predict(model, tokenizer, None, 0, 4, 3, tasks="tiny_cldr+tiny_prose")
    rows = list(predictions)
    assert predictions.total == len(rows) == 6 and tokenizer.pad_token == before
    assert [row["doc"] for row in rows] == [0, 1, 2] * 2
    assert rows[0]["protocol"].endswith(" tiny_cldr v1.0 test 0-shot") and not any(row["cut"] for row in rows)


def test_resumed_rows_are_the_same_rows(llama):
    whole = list(zero_shot.predict(*llama, None, 0, 4, 5, tasks="tiny_cldr+tiny_prose"))
    for start in (1, 4, 7, 10):
        assert list(zero_shot.predict(*llama, None, start, 4, 5, tasks="tiny_cldr+tiny_prose")) == whole[start:]


def test_a_prompt_beyond_the_context_is_told(llama):
    model, tokenizer = llama
    short = copy.copy(model)
    short.config = copy.deepcopy(model.config)
    short.config.max_position_embeddings = 40
    rows = list(zero_shot.predict(short, tokenizer, None, 0, 4, 4, tasks="tiny_cldr+tiny_arithmetic"))
    assert all(row["cut"] for row in rows if row["task"] == "tiny_arithmetic")


def test_a_zero_shot_task_takes_no_shots(llama):
    with pytest.raises(Problem, match="'tiny_cldr' is zero-shot by its definition"):
        zero_shot.predict(*llama, None, 0, 4, 2, tasks="tiny_cldr", shots=2)


def test_shots_are_drawn_as_lm_eval_draws_them(llama, tmp_path, monkeypatch):
    from lm_eval.tasks import TaskManager

    with (_catalogue.SUITES / "tiny_cldr.yaml").open() as file:
        config = yaml.safe_load(file.read().replace("!function choices.", ""))
    del config["num_fewshot"]
    text = yaml.safe_dump(config | {"task": "shown"}).replace("translations", "!function choices.translations")
    (tmp_path / "shown.yaml").write_text(text)
    (tmp_path / "choices.py").write_text("from harness.tasks.suites.choices import translations\n")
    monkeypatch.setattr(_catalogue, "SUITES", tmp_path)
    model, tokenizer = llama
    rows = list(zero_shot.predict(model, tokenizer, None, 0, 4, 12, tasks="shown", shots=3))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    _, samples = simple_evaluate(model, tokenizer, ["shown"], manager, limit=12, num_fewshot=3)
    assert seen(rows) == samples
    assert rows[0]["protocol"].endswith("shown v1.0 test 3-shot from test")


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (choices.translations, {"data": "cldr_pairs"}),
        (choices.results, {"data": "arithmetic"}),
        (choices.continuations, {"data": "prose", "shown": 12, "asked": 8}),
    ],
)
def test_suites_have_four_different_choices_and_no_favourite_place(make, options):
    suite = make(count=60, **options)["test"]
    assert suite.to_list() == make(count=60, **options)["test"].to_list()
    assert len(suite) == 60 and all(len(set(doc["choices"])) == 4 for doc in suite)
    places = [doc["label"] for doc in suite]
    assert all(places.count(place) >= 5 for place in range(4))


def test_arithmetics_right_choice_is_the_result_of_its_steps():
    for doc in choices.results(data="arithmetic", count=20)["test"]:
        calculation = doc["question"].removesuffix("=").rpartition("<<")[2]  # it is asked for, and stands nowhere
        a, operator, b = re.split(r"([-+*/])", calculation)
        assert int(doc["choices"][doc["label"]]) == OPERATORS[operator](int(a), int(b))


def test_sources_are_asked_without_torch():
    script = (
        "import sys; from harness.tasks import zero_shot; found = zero_shot.sources(tasks='tiny_cldr');"
        "assert found['tiny_cldr'].name == 'cldr_pairs';"
        "assert not {'torch', 'transformers', 'datasets', 'lm_eval'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.mirror
@pytest.mark.skipif(not os.environ.get("HARNESS_MIRROR"), reason="needs HARNESS_MIRROR")
def test_hub_tasks_from_the_mirror_equal_simple_evaluate(tmp_path):
    from lm_eval.tasks import TaskManager

    from harness import models
    from harness.sources import model_source

    source = model_source("karpathy/stories260K")
    model, tokenizer = models.load(source), models.load_processor(source)
    names = "arc_easy+sciq"
    rows = list(zero_shot.predict(model, tokenizer, None, 0, 4, 6, tasks=names))
    for entry in _catalogue.entries(names):
        content = {"include": str(entry.path), "task": entry.name}
        content |= {"dataset_path": str(_catalogue.source(entry).path), "training_split": None}
        content |= {"test_split": None} if entry.name == "sciq" else {}  # as the mirror's README says
        (tmp_path / f"{entry.name}.yaml").write_text(yaml.safe_dump(content))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    _, samples = simple_evaluate(model, tokenizer, names.split("+"), manager, limit=6)
    assert seen(rows) == samples
    assert {row["protocol"].split()[-2] for row in rows} == {"test", "validation"}
