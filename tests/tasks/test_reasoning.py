"""Reasoning: what is scored, what is kept of a long answer, prompts, and left padding that changes nothing."""

from __future__ import annotations

import pytest
import torch

from harness.problems import Problem
from harness.tasks import _generate, reasoning

ROWS = [
    {
        "question": f"the cat runs {i} plus {i * i}" + " on the tree" * (i % 3),
        "answer": f"{i}+{i}={2 * i}\n#### {2 * i}",
    }
    for i in range(6)
]


def scored(example):
    return [token for token in example["labels"] if token != -100]


def test_only_the_answer_and_the_end_are_scored(mpt):
    tokenizer = mpt[1]
    example = reasoning.examples(ROWS, tokenizer)[2]
    assert tokenizer.decode(example["input_ids"]) == ROWS[2]["question"] + ROWS[2]["answer"] + "<|endoftext|>"
    assert tokenizer.decode(scored(example)) == ROWS[2]["answer"] + "<|endoftext|>"
    assert example["labels"][-len(scored(example)) :] == scored(example)
    assert len(example["labels"]) == len(example["input_ids"])


def test_a_tokenizer_that_begins_texts_begins_the_question_only(llama):
    tokenizer = llama[1]
    ids = reasoning.examples(ROWS, tokenizer)[0]["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id


def test_a_long_answer_keeps_its_last_tokens(mpt):
    whole = reasoning.examples(ROWS, mpt[1])[2]
    cut = reasoning.examples(ROWS, mpt[1], length=4)[2]
    assert cut == {"input_ids": whole["input_ids"][-4:], "labels": whole["labels"][-4:]}


def test_lm_evals_template(mpt):
    example = reasoning.examples(ROWS, mpt[1], template="lm_eval")[1]
    text = mpt[1].decode(example["input_ids"])
    assert text == f"Question: {ROWS[1]['question']}\nAnswer: {ROWS[1]['answer']}<|endoftext|>"
    assert mpt[1].decode(scored(example)) == f" {ROWS[1]['answer']}<|endoftext|>"


@pytest.mark.parametrize("family", ["llama", "mpt"])
def test_the_batch_size_changes_nothing(family, request):
    model, tokenizer = request.getfixturevalue(family)
    examples = reasoning.examples(ROWS, tokenizer)
    lengths = [len(scored(examples[i])) for i in (0, 5)]
    with torch.no_grad():
        together = model(**reasoning.collate([examples[0], examples[5]], tokenizer)).loss.item()
        alone = [model(**reasoning.collate([examples[i]], tokenizer)).loss.item() for i in (0, 5)]
    weighted = sum(loss * length for loss, length in zip(alone, lengths, strict=True)) / sum(lengths)
    assert together == pytest.approx(weighted, rel=1e-5)
    found = [list(reasoning.predict(model, tokenizer, ROWS, 0, size, (), max_new_tokens=8)) for size in (1, 2, 6)]
    assert found[0] == found[1] == found[2]
    assert [row["reference"] for row in found[0]] == [row["answer"] for row in ROWS]


@pytest.fixture
def seen(monkeypatch):
    """Replaces the model's answer by a fixed text, and keeps the prompts."""
    prompts = []

    def generate(model, tokenizer, batch, **settings):
        prompts.extend(tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True))
        answer = tokenizer(" 7 cats\n#### 7\n\nQuestion: 8", add_special_tokens=False, return_tensors="pt").input_ids
        return torch.cat([batch["input_ids"], answer.expand(len(batch["input_ids"]), -1)], 1)

    monkeypatch.setattr(_generate, "generate", generate)
    return prompts


def test_solved_problems_are_shown_before_the_question(mpt, seen):
    list(reasoning.predict(*mpt, ROWS[:1], 0, 1, ROWS[3:5], shots=2, template="lm_eval"))
    shown = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in ROWS[3:5])
    assert seen == [shown + f"Question: {ROWS[0]['question']}\nAnswer:"]


def test_an_answer_ends_where_the_next_question_begins(mpt, seen):
    (row,) = reasoning.predict(*mpt, ROWS[:1], 0, 1, (), template="lm_eval")
    assert row["prediction"] == " 7 cats\n#### 7\n\n" and row["strict"] == row["flexible"] == "7"
    (raw,) = reasoning.predict(*mpt, ROWS[:1], 0, 1, ())
    assert raw["prediction"].endswith("Question: 8") and raw["flexible"] == "8"


def test_what_does_not_fit_is_a_problem(mpt):
    with pytest.raises(Problem, match="fewer than the 2 shots"):
        reasoning.predict(*mpt, ROWS, 0, 1, ROWS[:1], shots=2)
    with pytest.raises(Problem, match="exceed the context of 1024"):
        list(reasoning.predict(*mpt, ROWS, 0, 1, (), max_new_tokens=1020))
