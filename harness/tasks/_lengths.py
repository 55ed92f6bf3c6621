"""Examples that a model cannot read, or score, are refused by row; its own error would name none, if there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.data._rows import Rows
from harness.problems import Problem

CONTEXTS = ("max_position_embeddings", "max_seq_len", "n_positions")
"""The keys of a decoder-only model's configuration that hold how many tokens it reads."""


def positions(config: Any) -> float:
    """Returns how many tokens a model's decoder reads; infinity where its configuration names no number."""
    names = ("max_target_positions",) if config.is_encoder_decoder else CONTEXTS
    return next((getattr(config, name) for name in names if hasattr(config, name)), math.inf)


def fitting(features: Sequence[Any], model: Any) -> Sequence[Any]:
    """Returns features of which each is checked, when it is read, to fit the model.

    It has no more tokens than the decoder positions, and as many classes as the model tells apart: otherwise its label
    would be the number of some other class, or of none.

    Args:
        features: From a task's `examples`; `classes`, where one has it, is how many classes its label is of. Windows of
            one `length` are checked at once.
        model: The model they are for; where its configuration names no number of positions, no length is checked.

    Raises:
        Problem: The windows are longer than the decoder positions.
    """
    whole, most = not model.config.is_encoder_decoder, positions(model.config)
    if length := getattr(features, "length", None):
        if length > most:
            said = f"windows of {length} tokens are longer than the {most} that the model's decoder reads"
            raise Problem(said, hint="take a smaller length")
        return features

    def checked(index: int) -> Any:
        feature = features[index]
        read = "input_ids" if whole else "labels"
        if (length := len(feature.get(read, ()))) > most:
            said = f"the {read} have {length} tokens; the model's decoder reads up to {most}"
            raise Problem(said, where=f"row {index}", hint="leave the row out, or shorten it")
        if (classes := feature.get("classes", model.config.num_labels)) != model.config.num_labels:
            said = f"the model knows {model.config.num_labels} classes, and the data set has {classes}"
            raise Problem(said, where=f"row {index}", hint="take a model of these classes")
        return feature

    return Rows(range(len(features)), checked)
