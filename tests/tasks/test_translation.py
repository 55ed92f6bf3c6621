"""Translation: the prefix, what is cut and scored, and predictions that depend on nothing unsaid."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from harness.tasks import _generate, translation


@pytest.fixture
def rows(texts):
    return [{"source": a, "target": b} for a, b in pairwise(texts)][:5]


def test_examples_have_the_prefix_and_end_tokens(t5, rows):
    _, tokenizer = t5
    example = translation.examples(rows, tokenizer)[0]
    assert tokenizer.decode(example["input_ids"]) == f"translate English to German: {rows[0]['source']}</s>"
    assert tokenizer.decode(example["labels"]) == f"{rows[0]['target']}</s>"
    french = translation.examples(rows, tokenizer, target_language="French")[0]
    assert "to French: " in tokenizer.decode(french["input_ids"])


def test_long_texts_are_cut(t5, rows):
    example = translation.examples(rows, t5[1], max_source=6, max_target=3)[0]
    assert len(example["input_ids"]) == 6 and len(example["labels"]) == 3


def test_padding_is_not_scored(t5, rows):
    model, tokenizer = t5
    examples = translation.examples(rows, tokenizer)
    batch = translation.collate([examples[0], examples[3]], tokenizer)
    lengths = [len(examples[i]["labels"]) for i in (0, 3)]
    assert (batch["labels"] != -100).sum(1).tolist() == lengths
    assert batch["attention_mask"].sum(1).tolist() == [len(examples[i]["input_ids"]) for i in (0, 3)]
    with torch.no_grad():
        together = model(**batch).loss
        alone = [model(**translation.collate([examples[i]], tokenizer)).loss for i in (0, 3)]
    expected = sum(loss * length for loss, length in zip(alone, lengths, strict=True)) / sum(lengths)
    assert together.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_the_batch_size_changes_nothing(t5, rows, beams):
    options = {"max_new_tokens": 8, "beams": beams}
    found = [list(translation.predict(*t5, rows, 0, size, **options)) for size in (1, 2, 5)]
    assert found[0] == found[1] == found[2]
    assert [row["source"] for row in found[0]] == [row["source"] for row in rows]
    assert len({row["prediction"] for row in found[0]} - {""}) > 1


def test_greedy_is_the_models_own_argmax(t5, rows):
    model, tokenizer = t5
    (row,) = translation.predict(model, tokenizer, rows[:1], 0, 1, beams=1, max_new_tokens=5)
    source = tokenizer("translate English to German: " + rows[0]["source"], return_tensors="pt").input_ids
    ids = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.no_grad():
        for _ in range(5):
            ids = torch.cat([ids, model(source, decoder_input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    assert row["prediction"] == tokenizer.decode(ids[0], skip_special_tokens=True).strip()


def test_the_checkpoints_own_generation_settings_do_not_leak(t5, rows):
    model, tokenizer = t5
    before = list(translation.predict(model, tokenizer, rows[:2], 0, 2, beams=2, max_new_tokens=8))
    own = model.generation_config
    own.update(repetition_penalty=9.0, no_repeat_ngram_size=1, max_length=3)
    try:
        assert list(translation.predict(model, tokenizer, rows[:2], 0, 2, beams=2, max_new_tokens=8)) == before
        assert model.generation_config is own
    finally:
        own.update(repetition_penalty=None, no_repeat_ngram_size=None, max_length=None)


def test_the_length_penalty_reaches_the_beams(t5, rows, monkeypatch):
    seen = {}
    monkeypatch.setattr(_generate, "generate", lambda m, t, b, **s: seen.update(s) or b["input_ids"])
    list(translation.predict(*t5, rows[:1], 0, 1, beams=4, length_penalty=0.6, max_new_tokens=7))
    assert seen == {"num_beams": 4, "max_new_tokens": 7, "length_penalty": 0.6, "early_stopping": False}
