"""Text to text: nothing is added to a source, ids are taken as they are, and predictions say what they were asked."""

from __future__ import annotations

import pytest
import torch

from harness.problems import Problem
from harness.tasks import text_to_text


@pytest.fixture
def rows(texts):
    return [{"source": text, "target": text.upper()} for text in texts[:4]]


def test_texts_stand_as_they_are_with_end_tokens(t5, rows):
    example = text_to_text.examples(rows, t5[1])[1]
    assert t5[1].decode(example["input_ids"]) == f"{rows[1]['source']}</s>"
    assert t5[1].decode(example["labels"]) == f"{rows[1]['target']}</s>"


def test_long_texts_are_cut_and_ids_are_not(t5, rows):
    _, tokenizer = t5
    example = text_to_text.examples(rows, tokenizer, max_source=3, max_target=2)[0]
    assert len(example["input_ids"]) == 3 and len(example["labels"]) == 2
    ids = {"source_ids": [5] * 9, "target_ids": [7] * 8}
    example = text_to_text.examples([ids], tokenizer, max_source=3, max_target=2)[0]
    assert example == {"input_ids": ids["source_ids"], "labels": ids["target_ids"]}


def test_ids_of_another_tokenizer_are_refused(t5):
    _, tokenizer = t5
    rows = [{"source_ids": [1], "target_ids": [1]}, {"source_ids": [1], "target_ids": [len(tokenizer)]}]
    examples = text_to_text.examples(rows, tokenizer)
    assert examples[0] == {"input_ids": [1], "labels": [1]}
    with pytest.raises(Problem, match=f"token {len(tokenizer)} of target_ids") as caught:
        examples[1]
    assert caught.value.where == "row 1"


def test_greedy_is_the_models_own_argmax(t5, rows):
    model, tokenizer = t5
    (row,) = text_to_text.predict(model, tokenizer, rows[:1], 0, 1, max_new_tokens=5)
    source = tokenizer(rows[0]["source"], return_tensors="pt").input_ids
    ids = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.no_grad():
        for _ in range(5):
            chosen = model(input_ids=source, decoder_input_ids=ids).logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, chosen], dim=1)
            if chosen.item() == model.config.eos_token_id:
                break
    assert row["prediction"] == tokenizer.decode(ids[0], skip_special_tokens=True).strip()
    assert row["reference"] == rows[0]["target"].strip()


def test_ids_alone_cannot_be_judged(t5):
    with pytest.raises(Problem, match="text is needed"):
        list(text_to_text.predict(*t5, [{"source_ids": [1], "target_ids": [1]}], 0, 1))
