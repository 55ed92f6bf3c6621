"""Examples that a model cannot read are refused by row; inside the model the error would name none, if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.data._rows import Rows
from harness.problems import Problem

CONTEXTS = ("max_position_embeddings", "max_seq_len", "n_positions")
"""The keys of a decoder-only model's configuration that hold how many tokens it reads."""


def fitting(features: Sequence[Any], model: Any) -> Sequence[Any]:
    """Returns features of which each is checked, when it is read, to have no more tokens than the decoder positions.

    Args:
        features: From a task's `examples`.
        model: The model they are for; where its configuration names no number of positions, nothing is checked.
    """
    whole = not model.config.is_encoder_decoder
    names = CONTEXTS if whole else ("max_target_positions",)
    most = next((getattr(model.config, name) for name in names if hasattr(model.config, name)), None)
    if most is None:
        return features

    def checked(index: int) -> Any:
        feature = features[index]
        read = "input_ids" if whole else "labels"
        if (length := len(feature.get(read, ()))) > most:
            said = f"the {read} have {length} tokens; the model's decoder reads up to {most}"
            raise Problem(said, where=f"row {index}", hint="leave the row out, or shorten it")
        return feature

    return Rows(range(len(features)), checked)
