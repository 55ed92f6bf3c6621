"""The instruction data sets: their columns become instruction and response."""

from __future__ import annotations

import pytest

from harness.data import cnn_dailymail, slimpajama, ultrachat
from harness.problems import Problem
from harness.rooms import load

ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
BARE = {"instruction": "Sing.", "input": "", "output": "La."}


@pytest.mark.parametrize(
    ("name", "hub", "inputs"),
    [
        ("alpaca_gpt4", "vicgalle/alpaca-gpt4", True),
        ("open_platypus", "garage-bAInd/Open-Platypus", True),
        ("commonsense_170k", "zwhe99/commonsense_170k", True),
        ("evol_codealpaca", "theblackcat102/evol-codealpaca-v1", False),
    ],
)
def test_an_instruction_has_its_input_after_a_blank_line(put, name, hub, inputs):
    put(hub, {"default": {"train": [{**row, "text": "..."} for row in (ALPACA, BARE)]}})
    asked = "Add.\n\n1 and 2" if inputs else "Add."
    assert list(load("data", name).rows("train")) == [
        {"instruction": asked, "response": "3"},
        {"instruction": "Sing.", "response": "La."},
    ]


def test_an_article_is_the_instruction_and_its_highlights_the_response(put):
    row = {"article": "Long.", "highlights": "Short.\nShorter.", "id": "x"}
    put("abisee/cnn_dailymail", {"3.0.0": {"validation": [row]}})
    assert list(cnn_dailymail.rows("validation")) == [{"instruction": "Long.", "response": "Short.\nShorter."}]


def test_a_conversation_is_one_text(put):
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]
    put("HuggingFaceH4/ultrachat_200k", {"default": {"train_sft": [{"prompt": "Hello?", "messages": turns}]}})
    assert list(ultrachat.rows("train")) == [{"text": "<|user|>\nHello?\n<|assistant|>\nYes."}]
    with pytest.raises(Problem, match="train"):
        ultrachat.rows("train_sft")


def test_of_slimpajama_one_file_is_read(tmp_path, monkeypatch):
    folder = tmp_path / "datasets/cerebras/SlimPajama-627B/train/chunk1"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HARNESS_MIRROR", str(tmp_path))
    for number in (0, 1):
        text = f'{{"text": "file {number}", "meta": {{}}}}\n'
        (folder / f"example_train_{number}.jsonl").write_text(text)
    assert list(slimpajama.rows("train", files="chunk1/example_train_0.jsonl")) == [{"text": "file 0"}]
    assert len(slimpajama.rows("train", files="chunk1/*.jsonl")) == 2
