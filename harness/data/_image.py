"""Pictures in any format that Pillow reads -> RGB pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.data._audio import content
from harness.data._rows import Row
from harness.problems import Problem

if TYPE_CHECKING:
    import datasets
    import numpy as np


def decode(data: bytes, name: str = "image") -> np.ndarray:
    """Decodes a picture's bytes to uint8 [height, width, 3]; grey and CMYK pictures become RGB, alpha is dropped.

    Raises:
        Problem: Pillow cannot read it; `name` says which.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise Problem(f"cannot decode {name}: {error}") from error


def undecoded(data: datasets.Dataset) -> datasets.Dataset:
    """Leaves the column `image` as bytes, to be decoded when a row's image is read."""
    import datasets

    return data.cast_column("image", datasets.Image(decode=False))


def image_row(row: Mapping[str, Any], *, classes: Sequence[str]) -> Row:
    """Makes an image row of a hub row with an undecoded image and the number of its class."""
    return Row(image=partial(_pixels, row["image"]), label=row["label"], classes=classes)


def _pixels(picture: Mapping[str, Any]) -> np.ndarray:
    return decode(content(picture), picture["path"] or "image")
