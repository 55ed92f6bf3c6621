"""Completions: what follows each prompt, whatever its length, and no prompt that the model cannot read."""

from __future__ import annotations

import pytest

from harness.problems import Problem
from harness.tasks import _generate, humaneval, instruction
from harness.tasks._generate import completions

LONG = [{"instruction": "the cat runs " * 300, "response": "on the tree"}]


@pytest.mark.parametrize("family", ["llama", "mpt"])
def test_a_completion_is_what_comes_after_its_own_prompt(family, request):
    model, tokenizer = request.getfixturevalue(family)
    prompts = [tokenizer(text).input_ids for text in ("the house is old", "cat", "der Hund und das Haus")]
    together = completions(model, tokenizer, prompts, 6)
    assert together == [text for prompt in prompts for text in completions(model, tokenizer, [prompt], 6)]
    given = {"input_ids": prompts[0]}
    ids = model.generate(**tokenizer.pad([given], return_tensors="pt"), do_sample=False, max_new_tokens=6)
    assert together[0] == tokenizer.decode(ids[0, len(prompts[0]) :], skip_special_tokens=True)


def test_a_prompt_and_its_completion_fit_into_the_context(mpt):
    most = mpt[0].config.max_seq_len
    with pytest.raises(Problem, match=f"a prompt of {most} tokens and 1 new ones exceed the context of {most}"):
        completions(*mpt, [[5] * 3, [5] * most], 1)
    assert len(completions(*mpt, [[5] * (most - 1)], 1)) == 1
    with pytest.raises(Problem, match="exceed the context"):
        list(instruction.predict(*mpt, LONG, 0, 1, length=most))


def test_instruction_reasoning_and_humaneval_have_their_completions_from_here(monkeypatch, llama):
    monkeypatch.setattr(_generate, "generate", lambda model, tokenizer, batch, **settings: batch["input_ids"][:, :0])
    (row,) = instruction.predict(*llama, LONG, 0, 1, length=32)
    assert row["prediction"] == ""
    monkeypatch.setenv(humaneval.ALLOW, "1")
    problem = {"task_id": "a", "prompt": "def f():\n", "test": "def check(f): pass\n", "entry_point": "f"}
    monkeypatch.setattr("harness.data._hub.read", lambda source, split: [problem])
    monkeypatch.setattr(humaneval, "sources", lambda: {"humaneval": None})
    (row,) = humaneval.predict(*llama, None, 0, 1, None)
    assert row["prediction"] == ""
