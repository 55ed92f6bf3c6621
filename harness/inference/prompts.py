"""What a model is given to be timed: token ids drawn by a seed, or noise for a model that hears.

How long a dense or sparse product takes does not depend on the numbers in it, and the count of new tokens is fixed, so
a prompt needs no data set. Whisper hears its whole window whatever is said in it; how many tokens a transcript would
take is another matter, so no real-time factor comes of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.problems import Problem


def prompts(model: nn.Module, batch: int, length: int, *, seed: int) -> dict[str, Tensor]:
    """Returns a batch of inputs by the names that the model has for them, on its device and in its type.

    Args:
        model: A model that generates text.
        batch: Rows.
        length: Tokens of a row; a model that hears takes a row of frames as long as its window instead.
        seed: Draws them.

    Returns:
        `input_ids` [batch, length], or `input_features` [batch, mels, frames]; no position is padding.

    Raises:
        Problem: The model generates nothing.
    """
    draw = torch.Generator().manual_seed(seed)
    config = model.config
    if hears(model):
        shape = (batch, config.num_mel_bins, 2 * config.max_source_positions)
        return {"input_features": torch.randn(shape, generator=draw).to(model.device, model.dtype)}
    if model.main_input_name != "input_ids" or not model.can_generate():
        raise Problem(f"{type(model).__name__} generates nothing", hint="tokens are timed: give a model that has them")
    ids = torch.randint(config.vocab_size, (batch, length), generator=draw)
    return {"input_ids": ids.to(model.device)}


def start(model: nn.Module, batch: int) -> Tensor:
    """Returns the token that an encoder-decoder's decoder begins with, [batch, 1]."""
    first = model.generation_config.decoder_start_token_id
    first = model.config.decoder_start_token_id if first is None else first
    return torch.full((batch, 1), first, device=model.device)


def hears(model: nn.Module) -> bool:
    """Says whether a model is given sound in the place of tokens."""
    return model.main_input_name == "input_features"


def seconds_heard(model: nn.Module) -> float | None:
    """Returns how many seconds of sound one row is, for a model that hears; None for the others.

    Whisper's frames are 10 ms apart, two to a position of its encoder.
    """
    return model.config.max_source_positions / 50 if hears(model) else None
