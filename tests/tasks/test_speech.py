"""Speech: Whisper's prompt in labels and generation, windows, normalisers; real clips with the mirror."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy
import pytest
import torch
from transformers import WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from harness.problems import Problem
from harness.tasks import speech
from harness.tasks._generate import generate
from harness.tasks._lengths import fitting


def clip(seconds, seed=0):
    return (0.1 * numpy.random.default_rng(seed).standard_normal(int(16000 * seconds))).astype("float32")


@pytest.fixture(scope="module")
def rows(texts):
    return [{"audio": clip(1 + i % 3, i), "text": texts[i]} for i in range(5)]


@pytest.fixture(scope="module")
def multilingual():
    """A processor with the special tokens and their ids as in the multilingual checkpoints; no words."""
    languages = [f"<|{code}|>" for code in LANGUAGES]
    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *languages,
        "<|translate|>",
        "<|transcribe|>",
        "<|notimestamps|>",
    ]
    words = [f"x{i}" for i in range(speech.MULTILINGUAL_END)]
    vocab = {token: i for i, token in enumerate([*words, *special])}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[], additional_special_tokens=special[1:])
    return SimpleNamespace(tokenizer=tokenizer)


def test_labels_are_the_prompt_without_its_start_the_text_and_the_end(whisper, rows):
    tokenizer = whisper[1].tokenizer
    example = speech.examples(rows, whisper[1])[0]
    assert tokenizer.decode(example["labels"]) == f"<|notimestamps|>{rows[0]['text']}<|endoftext|>"
    assert example["input_features"].shape == (40, 600) and example["input_features"].dtype == numpy.float32


def test_the_model_reads_the_start_token_and_scores_the_prompt(whisper, rows):
    model, processor = whisper
    examples = speech.examples(rows, processor)
    batch = speech.collate([examples[0], examples[1]], processor)
    lengths = [len(examples[i]["labels"]) for i in (0, 1)]
    assert (batch["labels"] != -100).sum(1).tolist() == lengths
    with torch.no_grad():
        ids = torch.tensor([[model.config.decoder_start_token_id, *examples[0]["labels"][:-1]]])
        logits = model(input_features=batch["input_features"][:1], decoder_input_ids=ids).logits
        expected = torch.nn.functional.cross_entropy(logits[0], torch.tensor(examples[0]["labels"]))
        loss = model(**speech.collate([examples[0]], processor)).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_multilingual_prompt_names_language_and_task(multilingual):
    tokenizer = speech._tokenizer(multilingual, "hindi", "transcribe")
    expected = ["<|startoftranscript|>", "<|hi|>", "<|transcribe|>", "<|notimestamps|>"]
    assert tokenizer.convert_ids_to_tokens(tokenizer.prefix_tokens) == expected
    translate = speech._tokenizer(multilingual, "hi", "translate")
    assert translate.convert_ids_to_tokens(translate.prefix_tokens)[2] == "<|translate|>"


def test_a_language_is_needed_refused_or_unknown(multilingual, whisper, rows):
    with pytest.raises(Problem, match="needs the option language"):
        speech.examples(rows, multilingual)
    with pytest.raises(Problem, match="knows English only"):
        speech.examples(rows, whisper[1], language="hindi")
    with pytest.raises(Problem, match="unknown language 'hindu'"):
        speech.examples(rows, multilingual, language="hindu")


@pytest.mark.parametrize("seconds", [0, 6.1])
def test_a_clip_that_does_not_fit_is_refused_and_named(whisper, rows, seconds):
    examples = speech.examples([*rows, {"audio": clip(seconds), "text": "x"}], whisper[1])
    with pytest.raises(Problem, match=rf"row 5: the clip lasts {seconds:.1f} s; the model hears up to 6 s"):
        examples[5]


def test_labels_longer_than_the_decoder_are_refused_and_named(whisper, rows):
    model, processor = whisper
    spoken = [*rows, {"audio": clip(1), "text": "one " * 200}]
    features = fitting(speech.examples(spoken, processor), model)
    length = len(speech.examples(spoken, processor)[5]["labels"])
    assert len(features) == 6 and features[0]["labels"] == speech.examples(rows, processor)[0]["labels"]
    with pytest.raises(Problem, match=rf"row 5: the labels have {length} tokens; .* reads up to 128"):
        features[5]


def test_the_batch_size_changes_nothing(whisper, rows):
    found = [list(speech.predict(*whisper, rows, 0, size, max_new_tokens=8)) for size in (1, 2, 5)]
    assert found[0] == found[1] == found[2]
    assert [row["reference"] for row in found[0]] == [row["text"] for row in rows]


def test_generation_is_greedy_from_the_prompt(whisper, rows):
    model, processor = whisper
    (row,) = speech.predict(model, processor, rows[:1], 0, 1, max_new_tokens=4)
    features = torch.as_tensor(speech.examples(rows, processor)[0]["input_features"])[None]
    ids = torch.tensor([processor.tokenizer.prefix_tokens])
    with torch.no_grad():
        for _ in range(4):
            ids = torch.cat([ids, model(features, decoder_input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    assert row["prediction"] == processor.tokenizer.decode(ids[0], skip_special_tokens=True).strip()


def test_suppressed_tokens_are_never_said_unless_asked(whisper, rows, monkeypatch):
    model, processor = whisper
    made = []
    monkeypatch.setattr(speech, "generate", lambda *args, **more: made.append(generate(*args, **more)) or made[-1])
    own, kept = model.generation_config, model.generation_config.suppress_tokens
    list(speech.predict(model, processor, rows[:1], 0, 1, max_new_tokens=4))
    own.suppress_tokens = sorted(set(made[0][0, 2:].tolist()))
    try:
        list(speech.predict(model, processor, rows[:1], 0, 1, max_new_tokens=4))
        list(speech.predict(model, processor, rows[:1], 0, 1, max_new_tokens=4, suppress=False))
    finally:
        own.suppress_tokens = kept
    assert not set(made[1][0, 2:].tolist()) & set(made[0][0, 2:].tolist())
    assert torch.equal(made[2], made[0])


def test_generation_ends_with_the_models_positions(whisper, rows):
    (row,) = speech.predict(*whisper, rows[:1], 0, 1, max_new_tokens=100_000)
    assert row["prediction"]


def test_normalisers_are_named_for_what_they_are():
    plain, mapped = (
        SimpleNamespace(english_spelling_normalizer=None),
        SimpleNamespace(english_spelling_normalizer={"colour": "color"}),
    )
    name, normal = speech.normaliser(mapped, None)
    assert name == "whisper-english normaliser" and normal("The Colour, it's!") == "the color it is"
    name, normal = speech.normaliser(plain, "english")
    assert name.endswith("without spelling map") and normal("Mr. Colour") == "mister colour"
    name, normal = speech.normaliser(plain, "german")
    assert name == "whisper-basic normaliser" and normal("Grüße, it's [laut]!") == "grüße it s "


@pytest.mark.mirror
@pytest.mark.skipif(not os.environ.get("HARNESS_MIRROR"), reason="needs HARNESS_MIRROR")
def test_whisper_tiny_on_real_clips():
    from harness import models, rooms
    from harness.metrics import wer
    from harness.sources import model_source

    source = model_source("openai/whisper-tiny.en")
    model, processor = models.load(source), models.load_processor(source)
    clips = rooms.bind("data", "librivox")("test")
    rows = list(speech.predict(model, processor, [clips[i] for i in range(3)], 0, 3, max_new_tokens=60))
    scores = wer.score(rows, normaliser="whisper")
    assert scores["wer"].value < 15 < scores["wer_raw"].value
    assert scores["wer"].protocol.endswith("whisper-english normaliser")
    features = torch.stack(
        [torch.as_tensor(f["input_features"]) for f in speech.examples([clips[i] for i in range(3)], processor)]
    )
    theirs = processor.batch_decode(model.generate(features, max_new_tokens=60), skip_special_tokens=True)
    assert [row["prediction"] for row in rows] == [text.strip() for text in theirs]
