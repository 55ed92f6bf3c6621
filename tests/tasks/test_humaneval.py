"""HumanEval: what passes, what is cut, and that nothing runs unasked."""

from __future__ import annotations

import pytest

from harness.models import llama
from harness.problems import Problem
from harness.tasks import humaneval

ROW = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    "entry_point": "add",
}


@pytest.mark.parametrize(
    ("completion", "acc"),
    [
        ("    return a + b\n", 1.0),
        ("    return a - b\n", 0.0),
        ("    return a +\n", 0.0),
        ("    while True:\n        pass\n", 0.0),
    ],
)
def test_a_completion_is_judged_by_running_its_tests(completion, acc):
    said = humaneval._judged(ROW, completion, seconds=2.0)
    assert said["acc"] == acc and said["task"] == "humaneval" and said["prediction"] == completion


def test_a_completion_ends_before_the_next_statement():
    text = "    return a + b\n\n\ndef other():\n    pass\n"
    assert humaneval.STOP.split(text, maxsplit=1)[0].strip() == "return a + b"


def test_nothing_is_run_unless_the_machine_is_said_to_allow_it(monkeypatch):
    monkeypatch.delenv(humaneval.ALLOW, raising=False)
    with pytest.raises(Problem, match="runs the code"):
        humaneval.predict(None, None, None, 0, 1, None)


def test_a_tiny_model_fails_every_problem(tmp_path, monkeypatch):
    import datasets

    folder = tmp_path / "datasets" / humaneval.NAME
    folder.mkdir(parents=True)
    datasets.Dataset.from_list([ROW, ROW]).to_parquet(folder / "test.parquet")
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: test.parquet\n---\n"
    (folder / "README.md").write_text(card)
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setenv(humaneval.ALLOW, "1")
    model, processor = llama.tiny([ROW["prompt"]] * 4, seed=0)
    found = list(humaneval.predict(model, processor, None, 0, 2, None, max_new_tokens=4))
    assert [row["acc"] for row in found] == [0.0, 0.0] and found[0]["doc"] == "HumanEval/0"
