from __future__ import annotations

import numpy as np
import torch

from harness.models import whisper


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
    valid = whisper.valid(batch)
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
