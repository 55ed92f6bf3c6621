"""Deterministic generation under the settings that a task names, and no others.

transformers fills whatever a call leaves open from the checkpoint's own generation settings: temperatures, repetition
penalties and beam counts that differ between checkpoints. A score's protocol must name its settings, so the
checkpoint's are set aside during the call; only its token ids remain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin

from harness.tasks._batches import pad_id


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
