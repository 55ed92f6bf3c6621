"""The loop of greedy decoding: transformers' own tokens, with a cache, timed in parts that add up."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig, GenerationMixin

from harness.inference.greedy import Decoder, Run, follow, generate
from harness.inference.prompts import prompts, seconds_heard, start

FAMILIES = ("t5", "whisper", "mpt", "llama", "opt")


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers(family, tiny_models):
    model, _ = tiny_models.tiny(family, seed=3)
    inputs = prompts(model, 2, 7, seed=0)
    own = generate(model, inputs, 5).tokens
    given = {"decoder_input_ids": start(model, 2)} if model.config.is_encoder_decoder else {}
    model.generation_config = GenerationConfig(pad_token_id=0, decoder_start_token_id=0)  # none ends
    theirs = GenerationMixin.generate(model, **inputs, **given, max_new_tokens=5, do_sample=False)
    assert torch.equal(own, theirs[:, -5:])


@pytest.mark.parametrize("family", FAMILIES)
def test_following_the_tokens_gives_their_logits(family, tiny_models):
    model, _ = tiny_models.tiny(family)
    inputs = prompts(model, 3, 5, seed=0)
    tokens = generate(model, inputs, 4).tokens
    logits = follow(model, inputs, tokens)
    assert logits.shape[:2] == (3, 4) and torch.equal(logits.argmax(-1), tokens)


def test_a_step_reads_one_token_and_the_cache(tiny_models):
    model, _ = tiny_models.tiny("llama")
    inputs = prompts(model, 1, 9, seed=0)
    seen = []
    model.model.layers[0].register_forward_pre_hook(
        lambda module, given, named: seen.append(given[0].shape[1]), with_kwargs=True
    )
    generate(model, inputs, 4)
    assert seen == [9, 1, 1, 1]


def test_the_first_logits_are_the_full_forward_pass_last(tiny_models):
    model, _ = tiny_models.tiny("mpt")
    inputs = prompts(model, 2, 6, seed=5)
    with torch.no_grad():
        torch.testing.assert_close(Decoder(model, inputs).first(), model(**inputs).logits[:, -1])


def test_times_are_of_parts_that_follow_each_other(tiny_models):
    for family in ("t5", "llama"):
        model, _ = tiny_models.tiny(family)
        run = generate(model, prompts(model, 1, 4, seed=0), 3)
        assert run.first > run.encoder >= 0 and run.rest > 0 and run.step == run.rest / 2
        assert (run.encoder > 0) == (family == "t5")
    assert Run(torch.zeros(1, 5), 0.0, 1.0, 2.0).step == 0.5


def test_prompts_are_drawn_by_the_seed(tiny_models):
    model, _ = tiny_models.tiny("llama")
    one, same, other = (prompts(model, 2, 16, seed=seed)["input_ids"] for seed in (0, 0, 1))
    assert one.shape == (2, 16) and torch.equal(one, same) and not torch.equal(one, other)
    assert one.max() < model.config.vocab_size


def test_whisper_hears_its_window(tiny_models):
    model, _ = tiny_models.tiny("whisper")
    features = prompts(model, 2, 99, seed=0)["input_features"]
    assert features.shape == (2, 40, 600)
    assert seconds_heard(model) == 6
    assert start(model, 2).tolist() == [[model.config.decoder_start_token_id]] * 2
    assert seconds_heard(tiny_models.tiny("t5")[0]) is None
