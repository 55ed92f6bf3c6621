"""Whisper: speech recognition with an encoder over log-mel frames and a text decoder (arXiv:2212.04356).

Prunable: q_proj, k_proj, v_proj, out_proj of self- and cross-attention, fc1 and fc2 of every layer; the convolution
stem stays dense. Audio is padded or cut to one length, the encoder has no mask, and so all its positions count,
trailing silence included, as in the SquareHead authors' code; the decoder counts where a label does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from harness.models import IGNORED, Block, stack_blocks
from harness.models._tokenizer import train

MODEL_TYPES = ("whisper",)
MODEL = "AutoModelForSpeechSeq2Seq"
PROCESSOR = "AutoProcessor"
TASKS = ("speech",)

SPELLINGS = "normalizer.json"

_END = "<|endoftext|>"
_START = "<|startoftranscript|>"
_SPECIAL = (_END, _START, "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>")
_SPECIAL += ("<|nospeech|>", "<|notimestamps|>")


def blocks(model: nn.Module) -> list[Block]:
    """Whisper: speech encoder and text decoder."""
    cross = ("encoder_attn.k_proj", "encoder_attn.v_proj")
    return [
        *stack_blocks(model, "model.encoder.layers", "encoder", r"^fc\d$"),
        *stack_blocks(model, "model.decoder.layers", "decoder", r"^fc\d$", lambda name: name.endswith(cross)),
    ]


def valid(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All encoder positions (half the mel frames, for the stem's stride is 2), target positions by `labels != -100`."""
    features, labels = batch["input_features"], batch["labels"]
    frames = torch.ones(features.shape[0], features.shape[-1] // 2, dtype=torch.bool, device=features.device)
    return {"encoder": frames, "decoder": labels != IGNORED}


def norms(model: nn.Module) -> dict[str, nn.Module]:
    """The final layer norm of encoder and decoder."""
    return {"encoder": model.model.encoder.layer_norm, "decoder": model.model.decoder.layer_norm}


def files(processor: WhisperProcessor) -> dict[str, str]:
    """What transformers reads but does not write: the map of British to American spellings, for the text normaliser.

    Args:
        processor: Of a checkpoint that has the map, or of one that has none.

    Returns:
        File name -> content.
    """
    spellings = getattr(processor.tokenizer, "english_spelling_normalizer", None)
    return {SPELLINGS: json.dumps(spellings, indent=2, ensure_ascii=False) + "\n"} if spellings else {}


def tiny(texts: Iterable[str], *, seed: int) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Builds an English-only Whisper of 2 + 2 layers, width 128, that hears 6 seconds in 40 mel bands.

    Its prompt is that of the English-only checkpoints: <|startoftranscript|><|notimestamps|>. The special tokens stand
    last, as generation takes every id after <|notimestamps|> for a timestamp.

    Args:
        texts: Texts to train the tokenizer on.
        seed: Seed of the random weights.
    """
    core = json.loads(train(texts, ()).to_str())["model"]
    tokenizer = WhisperTokenizer(
        vocab=core["vocab"],
        merges=[tuple(pair) for pair in core["merges"]],
        pad_token=_END,
        additional_special_tokens=list(_SPECIAL[1:]),
    )
    extractor = WhisperFeatureExtractor(feature_size=40, chunk_length=6)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL}
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=extractor.feature_size,
        d_model=128,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_source_positions=extractor.nb_max_frames // 2,
        max_target_positions=128,
        pad_token_id=ids[_END],
        bos_token_id=ids[_END],
        eos_token_id=ids[_END],
        decoder_start_token_id=ids[_START],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WhisperForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        pad_token_id=ids[_END],
        bos_token_id=ids[_END],
        eos_token_id=ids[_END],
        decoder_start_token_id=ids[_START],
        max_length=config.max_target_positions,
        is_multilingual=False,
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        return_timestamps=False,
    )
    return model, WhisperProcessor(extractor, tokenizer)
