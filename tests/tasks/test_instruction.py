"""Instructions: what is written, what is scored, and what is cut."""

from __future__ import annotations

import pytest

from harness.models import IGNORED, llama
from harness.tasks import instruction

ROWS = [{"instruction": "Spell apple, then write chair.", "response": "a-p-p-l-e chair"}]


@pytest.fixture(scope="module")
def tiny():
    return llama.tiny([text for row in ROWS for text in row.values()] * 4, seed=0)


def test_the_response_alone_is_scored_or_the_prompt_too(tiny):
    processor = tiny[1]
    answer, whole = (instruction.examples(ROWS, processor, scored=scored)[0] for scored in ("answer", "all"))
    assert answer["input_ids"] == whole["input_ids"] == whole["labels"]
    said = processor.decode(answer["input_ids"])
    assert "### Instruction:\nSpell apple, then write chair.\n\n### Response:\na-p-p-l-e chair" in said
    scored = [label for label in answer["labels"] if label != IGNORED]
    assert processor.decode(scored[:-1]) == "a-p-p-l-e chair" and scored[-1] == processor.eos_token_id


@pytest.mark.parametrize("template", instruction.TEMPLATES)
def test_a_long_instruction_loses_its_end_and_nothing_else_is_lost(tiny, template):
    processor = tiny[1]
    long = [{"instruction": "chair apple " * 100, "response": "a-p-p-l-e chair"}]
    made = instruction.examples(long, processor, template=template, length=80)[0]
    said = processor.decode(made["input_ids"], skip_special_tokens=True)
    head, tail = instruction.TEMPLATES[template].split("{}")
    assert len(made["input_ids"]) <= 80 and said.startswith(head + "chair apple")
    assert f"{tail}a-p-p-l-e chair" in said and made["labels"][-1] == processor.eos_token_id


def test_a_response_is_what_comes_after_the_prompt(tiny):
    model, processor = tiny
    found = list(instruction.predict(model, processor, ROWS * 3, 1, 2, max_new_tokens=3))
    assert len(found) == 2 and all(row["reference"] == "a-p-p-l-e chair" for row in found)
    assert all("Instruction" not in row["prediction"] for row in found)
