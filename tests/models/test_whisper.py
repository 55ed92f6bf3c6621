from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from harness import models
from harness.models import whisper
from harness.sources import model_source
from harness.tasks.speech import normaliser


def test_blocks_and_what_they_read(tiny_models):
    model, _ = tiny_models.tiny("whisper")
    blocks = whisper.blocks(model)
    assert [b.stack for b in blocks] == ["encoder"] * 2 + ["decoder"] * 2
    assert [len(b.linears) for b in blocks] == [6, 6, 10, 10]
    reads = {x.name.removeprefix("model.decoder.layers.0."): x.reads for x in blocks[2].linears}
    crossing = {name for name, stack in reads.items() if stack == "encoder"}
    assert crossing == {"encoder_attn.k_proj", "encoder_attn.v_proj"}


def test_all_frames_count_and_the_targets_that_are_scored(tiny_models):
    model, processor = tiny_models.tiny("whisper")
    batch = tiny_models.whisper_batch(processor, ["one text", "a longer text"])
    valid = whisper.valid(model, batch)
    states = model.model.encoder(batch["input_features"]).last_hidden_state
    assert valid["encoder"].shape == states.shape[:2] and valid["encoder"].all()
    assert torch.equal(valid["decoder"], batch["labels"] != -100)


def test_audio_is_padded_and_cut_to_what_the_model_takes(tiny_models):
    model, processor = tiny_models.tiny("whisper")
    for seconds in (1, 9):
        features = processor(np.zeros(16_000 * seconds, np.float32), sampling_rate=16_000, return_tensors="pt")
        assert features.input_features.shape == (1, 40, 2 * model.config.max_source_positions)


def test_labels_begin_with_the_prompt_that_generation_gives(tiny_models):
    model, processor = tiny_models.tiny("whisper")
    start, second, *text, end = processor.tokenizer("hello").input_ids
    assert start == model.config.decoder_start_token_id and end == model.generation_config.eos_token_id
    assert second == model.generation_config.no_timestamps_token_id
    assert processor.tokenizer.decode(text) == "hello"
    asked = []
    decoder = model.model.decoder
    decoder.register_forward_pre_hook(lambda _, args, kwargs: asked.append(kwargs["input_ids"]), with_kwargs=True)
    model.generate(torch.zeros(1, 40, 600), max_new_tokens=2)
    assert asked[0].tolist() == [[start, second]]
    assert processor.tokenizer.convert_tokens_to_ids("<|en|>") == start + 1


def test_no_text_token_is_taken_for_a_timestamp(tiny_models):
    model, processor = tiny_models.tiny("whisper")
    assert model.generation_config.no_timestamps_token_id == len(processor.tokenizer) - 1
    passes = []
    model.model.encoder.register_forward_pre_hook(lambda *_: passes.append(1))
    model.generate(torch.zeros(1, 40, 600), max_new_tokens=2)
    assert len(passes) == 1


SPELLINGS = {"colour": "color", "naïve": "naive"}


def test_the_spelling_map_of_the_normaliser_is_kept(tiny_models, tmp_path):
    """So a checkpoint's text normaliser is the same before and after it was pruned or tuned."""
    model, processor = whisper.tiny(tiny_models.TEXTS, seed=0)
    processor.tokenizer.english_spelling_normalizer = SPELLINGS
    for folder in (tmp_path / "first", tmp_path / "second"):
        models.save(model, processor, folder)
        processor = models.load_processor(folder)
        assert processor.tokenizer.english_spelling_normalizer == SPELLINGS
    name, normal = normaliser(processor.tokenizer, None)
    assert name == "whisper-english normaliser" and normal("Naïve Colour") == "naive color"


def test_a_checkpoint_without_a_spelling_map_gets_none(tiny_models, tmp_path):
    model, processor = tiny_models.tiny("whisper")
    models.save(model, processor, tmp_path)
    assert not (tmp_path / whisper.SPELLINGS).exists()
    assert normaliser(models.load_processor(tmp_path).tokenizer, None)[0].endswith("without spelling map")


@pytest.mark.mirror
@pytest.mark.skipif(not os.environ.get("HARNESS_MIRROR"), reason="needs HARNESS_MIRROR")
def test_the_real_spelling_map_is_kept(tmp_path):
    source = model_source("openai/whisper-tiny.en")
    processor = models.load_processor(source)
    models.save(models.load(source), processor, tmp_path)
    kept = models.load_processor(tmp_path).tokenizer.english_spelling_normalizer
    assert kept == processor.tokenizer.english_spelling_normalizer and len(kept) > 1000
