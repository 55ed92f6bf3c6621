"""Deterministic generation under the settings that a task names, and no others.

transformers fills whatever a call leaves open from the checkpoint's own generation settings: temperatures, repetition
penalties and beam counts that differ between checkpoints. A score's protocol must name its settings, so the
checkpoint's are set aside during the call; only its token ids remain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin

from harness.problems import Problem
from harness.tasks._batches import inputs, pad_id
from harness.tasks._lengths import positions


@torch.no_grad()
def generate(model: Any, tokenizer: Any, batch: Mapping[str, torch.Tensor], **settings: Any) -> torch.Tensor:
    """Generates without sampling.

    Args:
        model: A model that generates, on its device.
        tokenizer: Gives the padding id and, where the checkpoint names none, the end id.
        batch: What `generate` is given, on any device.
        settings: Fields of `GenerationConfig`: `num_beams`, `max_new_tokens`, ...

    Returns:
        Token ids [batch, length], with the prompt, on the CPU.
    """
    own = model.generation_config
    ids = {
        "eos_token_id": tokenizer.eos_token_id if own.eos_token_id is None else own.eos_token_id,
        "pad_token_id": pad_id(tokenizer),
        "decoder_start_token_id": own.decoder_start_token_id,
    }
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    model.generation_config = GenerationConfig(**ids)
    try:
        chosen = GenerationConfig(do_sample=False, **ids, **settings)
        return GenerationMixin.generate(model, **batch, generation_config=chosen).cpu()
    finally:
        model.generation_config = own


def completions(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], new: int) -> list[str]:
    """Returns what a model writes after each prompt, greedily: the new tokens decoded, without the special ones.

    Args:
        model: A decoder-only model, on its device.
        tokenizer: Its tokenizer.
        prompts: Token ids of each, of any lengths; padding on the left changes no result.
        new: Most tokens of a completion.

    Raises:
        Problem: The longest prompt and its completion do not fit into the model's context.
    """
    given = inputs(prompts, tokenizer, left=True)
    width = given["input_ids"].shape[1]
    if width + new > (context := positions(model.config)):
        what = f"a prompt of {width} tokens and {new} new ones exceed the context of {context}"
        raise Problem(what, hint="shorter prompts, or a smaller max_new_tokens")
    ids = generate(model, tokenizer, given, num_beams=1, max_new_tokens=new)
    return tokenizer.batch_decode(ids[:, width:], skip_special_tokens=True)


def beside_targets(
    model: Any, processor: Any, rows: Sequence[Mapping[str, str]], sources: Sequence[Sequence[int]], **settings: Any
) -> list[dict[str, str]]:
    """Returns what an encoder-decoder writes for the sources of pairs, beside the pairs' targets.

    Args:
        model: The encoder-decoder, on its device.
        processor: Its tokenizer.
        rows: Rows with `source` and `target`.
        sources: Token ids of each row's source, as the model reads it.
        settings: As `generate`.

    Returns:
        Rows with `source`, `prediction` and `reference`, the last two stripped.
    """
    ids = generate(model, processor, inputs(sources, processor), **settings)
    written = processor.batch_decode(ids, skip_special_tokens=True)
    return [
        {"source": row["source"], "prediction": text.strip(), "reference": row["target"].strip()}
        for row, text in zip(rows, written, strict=True)
    ]
