"""Labels that a model's decoder cannot read are refused by row; inside the model the error would name none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.data._rows import Rows
from harness.problems import Problem


def fitting(features: Sequence[Any], model: Any) -> Sequence[Any]:
    """Returns features of which each is checked, when it is read, to have no more labels than the decoder positions.

    Args:
        features: From a task's `examples`.
        model: The model they are for; without `max_target_positions` in its configuration nothing is checked.
    """
    most = getattr(model.config, "max_target_positions", None)
    if most is None:
        return features

    def checked(index: int) -> Any:
        feature = features[index]
        if (length := len(feature["labels"])) > most:
            said = f"the labels have {length} tokens; the model's decoder reads up to {most}"
            raise Problem(said, where=f"row {index}", hint="leave the row out, or shorten its text")
        return feature

    return Rows(range(len(features)), checked)
