"""The tiny model of each family with its processor and a few padded batches, for tests of models and of pruning."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from harness import rooms

TEXTS = [
    "The weights that matter stay, the others become zero.",
    "Ein Block nach dem anderen: sammeln, beschneiden, weiterreichen.",
    "Padding enters no statistic.",
    "A forward pass that pauses at every door.",
    "Half of them go",
    "Sparse models answer sooner, and nobody has to wait for the sum of twelve and thirty.",
]


def tiny(family, seed=0):
    return rooms.load("model", family).tiny(TEXTS * 4, seed=seed)


def causal_batch(tokenizer, texts):
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return {**batch, "labels": labels}


def t5_batch(tokenizer, texts):
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    target = tokenizer([text[::-1] for text in texts], return_tensors="pt", padding=True)
    return {**batch, "labels": target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)}


def whisper_batch(processor, texts):
    waves = [torch.sin(torch.arange(500 * len(text)) * (0.01 + len(text) / 500)).numpy() for text in texts]
    features = processor.feature_extractor(waves, sampling_rate=16_000, return_tensors="pt").input_features
    target = processor.tokenizer(texts, return_tensors="pt", padding=True)
    labels = target["input_ids"].masked_fill(target["attention_mask"] == 0, -100)
    return {"input_features": features, "labels": labels[:, 1:]}


def picture(text, side=32):
    """Noise that a text names, uint8 [side, side, 3]."""
    return np.frombuffer(hashlib.shake_256(text.encode()).digest(3 * side**2), np.uint8).reshape(side, side, 3)


def image_batch(processor, texts):
    pixels = [processor(picture(text), input_data_format="channels_last", return_tensors="pt") for text in texts]
    labels = torch.tensor([len(text) % 3 for text in texts])
    return {"pixel_values": torch.cat([each["pixel_values"] for each in pixels]), "labels": labels}


MAKE = {
    "t5": t5_batch,
    "whisper": whisper_batch,
    "mpt": causal_batch,
    "llama": causal_batch,
    "opt": causal_batch,
    "vit": image_batch,
}


def batches(family, processor, size=2):
    """The six texts in batches of `size`."""
    return [MAKE[family](processor, TEXTS[at : at + size]) for at in range(0, len(TEXTS), size)]
