"""The tokens of a call as a decoder's rows of activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def embedded(stack: nn.Module, given: Mapping[str, Any]) -> Tensor:
    """Returns a call's tokens embedded, or the embeddings that it was given, [batch, tokens, width]."""
    found = given.get("inputs_embeds")
    return stack.get_input_embeddings()(given["input_ids"]) if found is None else found
