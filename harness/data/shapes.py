"""Small pictures of one coloured shape on a noisy ground, 32 x 32 pixels, 12 classes: "blue cross", "red ring", ...

A picture is a class, a size, a place and a draw of the noise; its split is a hash of the first three, so that no test
picture is a training picture under other noise. The noise is a hash too, and all numbers are integers: the pixels are
the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING

from harness.data._rows import Row, Rows, check_splits, first, share, split_of
from harness.ranges import Count
from harness.sources import Source, generated

if TYPE_CHECKING:
    import numpy as np

KIND = "image"
SPLITS = ("train", "validation", "test")
VERSION = "1"
HELD_OUT = 400

SIDE = 32
RADII = range(5, 13)
CENTRES = range(14, 18)
DRAWS = range(3)
COLOURS = ("blue", "green", "red")
SHAPES = ("cross", "ring", "square", "triangle")
CLASSES = tuple(f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES))
CHANNEL = {"red": 0, "green": 1, "blue": 2}


def source(splits: Sequence[str] = (), *, size: Count = 3000) -> Source:
    """Our generator; raises a `Problem` for an unknown split."""
    check_splits("shapes", splits, SPLITS)
    return generated("shapes", VERSION)


def rows(split: str, *, size: Count = 3000) -> Rows:
    """Coloured crosses, rings, squares and triangles on noise, 12 classes (generated).

    Args:
        split: train, or validation or test (400 pictures each, whatever `size` is).
        size: Number of training pictures.
    """
    check_splits("shapes", [split], SPLITS)
    pictures = _splits()[split]
    return Rows(first("shapes", pictures, size) if split == "train" else pictures[:HELD_OUT], _row)


Picture = tuple[int, int, int, int, int]
"""A class, a radius, the centre's row and column, and the draw of the noise."""


def _row(picture: Picture) -> Row:
    return Row(image=partial(draw, picture), label=picture[0], classes=CLASSES)


def _key(picture: Picture) -> str:
    return f"{_form(picture)} {picture[-1]}"


def _form(picture: Picture) -> str:
    number, radius, row, column, _ = picture
    return f"{CLASSES[number]} {radius} {row} {column}"


@cache
def _splits() -> dict[str, list[Picture]]:
    found: dict[str, list[Picture]] = {split: [] for split in SPLITS}
    pictures = product(range(len(CLASSES)), RADII, CENTRES, CENTRES, DRAWS)
    for picture in sorted(pictures, key=lambda picture: share(_key(picture))):
        found[split_of(f"split {_form(picture)}")].append(picture)
    return found


def draw(picture: Picture) -> np.ndarray:
    """Draws a picture, uint8 [32, 32, 3]: the ground's channels lie below 64, the colour's own at 160 and above."""
    import numpy as np

    number, radius, row, column, _ = picture
    colour, shape = CLASSES[number].split()
    noise = np.frombuffer(hashlib.shake_256(_key(picture).encode()).digest(3 * SIDE**2), np.uint8)
    pixels = (noise // 4).reshape(SIDE, SIDE, 3)
    rows, columns = np.indices((SIDE, SIDE)) - np.array([row, column])[:, None, None]
    pixels[covered(shape, rows, columns, radius), CHANNEL[colour]] += 160
    return pixels


def covered(shape: str, rows: np.ndarray, columns: np.ndarray, radius: int) -> np.ndarray:
    """Says which places a shape covers: [height, width] bool of the distances from its centre, downwards and right."""
    square, across = rows**2 + columns**2, abs(columns)
    inside = (abs(rows) <= radius) & (across <= radius)
    return {
        "cross": inside & ((3 * abs(rows) <= radius) | (3 * across <= radius)),
        "ring": (square <= radius**2) & (4 * square >= radius**2),
        "square": inside,
        "triangle": inside & (2 * across <= rows + radius),
    }[shape]
