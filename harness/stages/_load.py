"""A model as a stage reads it: where a mask lies beside the weights, its zeros are verified first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import models
from harness.pruning import keep
from harness.sources import Source


def verified(source: Path | Source, dtype: str = "float32") -> Any:
    """Loads a model in `dtype`, in eval mode on the CPU.

    Raises:
        Problem: Its folder holds a mask, and pruned weights are not zero.
    """
    model = models.load(source, dtype)
    folder = source.path if isinstance(source, Source) else source
    if folder is not None and (folder / keep.FILE).is_file():
        keep.verify(model, keep.load(folder))
    return model
