"""ImageNet-1k (Russakovsky et al., arXiv:1409.0575): photographs of 1,000 classes; the vision tables' data.

Calibration draws from `train`, accuracy is that of the 50,000 pictures of `validation`: the labels of `test` were never
published, so there is no such split here. On the hub the data set is gated.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from harness.data._hub import find, read
from harness.data._image import image_row, undecoded
from harness.data._rows import Rows
from harness.problems import Problem
from harness.sources import Source

KIND = "image"
SPLITS = ("train", "validation")
NAME = "ILSVRC/imagenet-1k"


def source(splits: Sequence[str] = (), *, revision: str = "main") -> Source:
    """Finds the data; raises a `Problem` when a split cannot be had here."""
    return find(NAME, known=SPLITS, splits=splits, revision=revision)


def rows(split: str, *, revision: str = "main") -> Rows:
    """ImageNet-1k photographs (ILSVRC/imagenet-1k), decoded when they are read.

    Args:
        split: train or validation.
        revision: The hub's branch or commit.

    Raises:
        Problem: A copy of the data set does not name its classes.
    """
    found = source([split], revision=revision)
    data = undecoded(read(found, split))
    names = getattr(data.features["label"], "names", None)
    if names is None:
        raise Problem("this copy of ImageNet does not name its classes", where=str(found.path or found.name))
    return Rows(data, partial(image_row, classes=tuple(names)))
