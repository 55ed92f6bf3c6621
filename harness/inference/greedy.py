"""Greedy decoding with a key-value cache, a step at a time, and how long each part of it takes.

transformers' own `generate` works with every engine as it does with the model, and spends part of each token on
choosing among features that greedy decoding has not. This is the loop without them, the same for all that is compared:

    [encoder] -> prompt -> token 1 -> token 2 -> ...        argmax of each step's logits is the next step's input
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import models
from harness.inference.prompts import start


@dataclass(frozen=True)
class Run:
    """One generation.

    Attributes:
        tokens: What was generated, [batch, tokens].
        encoder: Seconds until the encoder was done; 0 for a decoder-only model.
        first: Seconds until the first token, the encoder's included.
        rest: Seconds for the other tokens.
    """

    tokens: Tensor
    encoder: float
    first: float
    rest: float

    @property
    def step(self) -> float:
        """Seconds from one token to the next."""
        return self.rest / (self.tokens.shape[1] - 1)


class Decoder:
    """A model in the middle of a text: its prompt, its encoder's outputs if it has an encoder, and its cache."""

    def __init__(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
        """Runs the encoder, if there is one.

        Args:
            model: A model that generates, in eval mode, or what an engine made of one.
            inputs: From `prompts`.
        """
        inputs = models.placed(model, inputs)
        self.model, self.cache = model, None
        self.given: dict[str, Any] = {"logits_to_keep": 1} if takes_last(type(model)) else {}
        self.name, self.prompt = "input_ids", inputs.get("input_ids")
        if model.config.is_encoder_decoder:
            self.given["encoder_outputs"] = model.get_encoder()(**inputs)
            self.name, self.prompt = "decoder_input_ids", start(model, len(next(iter(inputs.values()))))

    def first(self) -> Tensor:
        """Reads the prompt and returns the logits of the first new token, [batch, vocabulary]."""
        return self.next(self.prompt)

    def next(self, token: Tensor) -> Tensor:
        """Reads the token that came last, [batch, 1], and returns the logits of the one after it."""
        out = self.model(**{self.name: token}, **self.given, past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        return out.logits[:, -1]


@torch.inference_mode()
def generate(model: nn.Module, inputs: Mapping[str, Tensor], tokens: int) -> Run:
    """Generates exactly so many tokens, at least 2, whatever they are; an end token ends nothing."""
    begin = _now(model)
    decoder = Decoder(model, inputs)
    encoded = _now(model)
    found = [decoder.first().argmax(-1, keepdim=True)]
    first = _now(model)
    for _ in range(tokens - 1):
        found.append(decoder.next(found[-1]).argmax(-1, keepdim=True))
    end = _now(model)
    encoder = encoded - begin if model.config.is_encoder_decoder else 0.0
    return Run(torch.cat(found, 1), encoder, first - begin, end - first)


@torch.inference_mode()
def follow(model: nn.Module, inputs: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Returns the logits before each of these tokens, one step after the other: float32 [batch, tokens, vocabulary]."""
    decoder = Decoder(model, inputs)
    found = [decoder.first()]
    found += [decoder.next(token) for token in tokens.split(1, 1)[:-1]]
    return torch.stack(found, 1).float()


@functools.cache
def takes_last(kind: type) -> bool:
    """Says whether a model can leave the logits of all positions but the last one uncomputed."""
    return "logits_to_keep" in inspect.signature(kind.forward).parameters


def _now(model: nn.Module) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
