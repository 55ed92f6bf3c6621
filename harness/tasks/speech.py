"""Speech recognition with Whisper (Radford et al., arXiv:2212.04356): log-mel frames in, transcript tokens out.

    decoder: <|startoftranscript|> [<|language|><|task|>] <|notimestamps|> transcript <|endoftext|>

Labels are this sequence without its first token, which the model itself puts before them when it shifts them right.
English-only checkpoints have no language and task tokens; multilingual ones must be told the language. Audio is padded
to the checkpoint's window, and a clip that is longer is refused, not cut. Generation starts from the prompt, greedily
by default; the checkpoint's list of tokens that are never generated (brackets, music notes, ...) is kept, as in
transformers' own generation and other than in the SquareHead authors' script; `suppress=false` drops it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from harness.data._audio import RATE
from harness.data._rows import Rows
from harness.models import IGNORED
from harness.problems import Problem
from harness.ranges import Count
from harness.tasks._batches import Predictions, in_batches, padded
from harness.tasks._generate import generate

READS = "speech"
METRIC = "wer"
MULTILINGUAL_END = 50257
"""Id of <|endoftext|> in multilingual checkpoints; the language tokens tell nothing, for all checkpoints have them."""


def _tokenizer(processor: Any, language: str | None, task: str) -> Any:
    """Returns the tokenizer with its prompt set.

    Raises:
        Problem: A language is missing for a multilingual checkpoint, given to an English-only one, or unknown.
    """
    tokenizer = copy.deepcopy(processor.tokenizer)
    multilingual = tokenizer.convert_tokens_to_ids("<|endoftext|>") == MULTILINGUAL_END
    if multilingual == (language is None):
        what = "a multilingual Whisper needs the option language" if multilingual else "this Whisper knows English only"
        raise Problem(what, hint="write speech:language=hindi" if multilingual else "leave language out")
    try:
        tokenizer.set_prefix_tokens(language=language, task=task if multilingual else None, predict_timestamps=False)
        tokenizer.prefix_tokens  # noqa: B018  (an unknown language shows here)
    except ValueError as error:
        raise Problem(f"unknown language {language!r}", hint=str(error)) from None
    return tokenizer


def _features(index: int, audio: Any, processor: Any) -> Any:
    """Returns the log-mel features of one clip, float32 [mels, frames]."""
    extractor = processor.feature_extractor
    if not 0 < len(audio) <= extractor.n_samples:
        seconds = f"{len(audio) / RATE:.1f} s"
        raise Problem(
            f"the clip lasts {seconds}; the model hears up to {extractor.chunk_length} s", where=f"row {index}"
        )
    return extractor(audio, sampling_rate=RATE, return_tensors="np").input_features[0]


def examples(
    rows: Sequence[Mapping[str, Any]],
    processor: Any,
    *,
    language: str | None = None,
    task: Literal["transcribe", "translate"] = "transcribe",
) -> Sequence[dict[str, Any]]:
    """Log-mel features and transcript tokens of each clip, made on access.

    Args:
        rows: Rows with `audio` (float32, 16 kHz) and `text`.
        processor: The feature extractor and tokenizer.
        language: Language of a multilingual checkpoint, by name or code; none for an English-only one.
        task: What a multilingual checkpoint is told to do.

    Returns:
        `input_features` [mels, frames] and `labels` each.
    """
    tokenizer = _tokenizer(processor, language, task)

    def make(index: int) -> dict[str, Any]:
        row = rows[index]
        return {
            "input_features": _features(index, row["audio"], processor),
            "labels": tokenizer(row["text"]).input_ids[1:],
        }

    return Rows(range(len(rows)), make)


def collate(features: Sequence[Mapping[str, Any]], processor: Any) -> dict[str, Tensor]:
    """Returns `input_features` [batch, mels, frames] and `labels` [batch, target]."""
    stacked = torch.stack([torch.as_tensor(f["input_features"]) for f in features])
    return {"input_features": stacked, "labels": padded([f["labels"] for f in features], IGNORED)}


def texts(row: Mapping[str, Any]) -> list[str]:
    """Returns the transcript."""
    return [row["text"]]


def normaliser(tokenizer: Any, language: str | None) -> tuple[str, Any]:
    """Returns the name and function of Whisper's text normaliser for a language.

    English has its own, which also needs the checkpoint's map of British to American spellings (normalizer.json);
    without that map it is named so. Every other language has the basic one.
    """
    if language not in (None, "en", "english"):
        return "whisper-basic normaliser", BasicTextNormalizer()
    spellings = tokenizer.english_spelling_normalizer
    name = "whisper-english normaliser" + ("" if spellings else " without spelling map")
    return name, EnglishTextNormalizer(spellings or {})


def predict(
    model: Any,
    processor: Any,
    rows: Sequence[Mapping[str, Any]],
    start: int,
    batch_size: int,
    *,
    language: str | None = None,
    task: Literal["transcribe", "translate"] = "transcribe",
    beams: Count = 1,
    max_new_tokens: Count = 225,
    suppress: bool = True,
) -> Predictions:
    """Transcription with Whisper's prompt, greedy by default.

    Args:
        model: The Whisper model.
        processor: The feature extractor and tokenizer.
        rows: Rows with `audio` (float32, 16 kHz) and `text`.
        start: Rows done before.
        batch_size: Clips a batch.
        language: Language of a multilingual checkpoint, by name or code; none for an English-only one.
        task: What a multilingual checkpoint is told to do.
        beams: Beams; 1 is greedy search.
        max_new_tokens: Most tokens of a transcript; the model's positions end it earlier where it has fewer.
        suppress: Whether the checkpoint's list of tokens never to generate holds.

    Returns:
        Rows with `prediction`, `reference`, and both again under `normalised` after the text normaliser named in
        `normaliser`.
    """
    tokenizer = _tokenizer(processor, language, task)
    prompt = tokenizer.prefix_tokens
    own = model.generation_config
    room = model.config.max_target_positions - len(prompt)
    settings = {"num_beams": beams, "max_new_tokens": min(max_new_tokens, room)}
    if suppress:
        settings |= {"suppress_tokens": own.suppress_tokens, "begin_suppress_tokens": own.begin_suppress_tokens}
    name, normal = normaliser(tokenizer, language)

    def transcribe(batch: list[tuple[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        features = torch.stack([torch.as_tensor(_features(index, row["audio"], processor)) for index, row in batch])
        given = {
            "input_features": features.to(model.dtype),
            "attention_mask": torch.ones(len(batch), features.shape[-1], dtype=torch.long),
            "decoder_input_ids": torch.tensor([prompt] * len(batch)),
        }
        ids = generate(model, tokenizer, given, **settings)
        done = []
        for (_, row), text in zip(batch, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            said = {"prediction": text.strip(), "reference": row["text"].strip()}
            done.append(said | {"normaliser": name, "normalised": {key: normal(value) for key, value in said.items()}})
        return done

    return in_batches(Rows(range(len(rows)), lambda index: (index, rows[index])), start, batch_size, transcribe)
