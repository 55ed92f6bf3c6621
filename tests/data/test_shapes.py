from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from harness.data import shapes
from harness.problems import Problem

PICTURES = {split: shapes._splits()[split] for split in shapes.SPLITS}


def mask_of(pixels):
    """Where the shape is, read from the pixels alone: some channel is bright."""
    return pixels.max(2) >= 160


def test_pictures_have_the_colour_of_their_class():
    for row in shapes.rows("test"):
        pixels, (colour, _) = row["image"], row["classes"][row["label"]].split()
        assert pixels.dtype == np.uint8 and pixels.shape == (32, 32, 3)
        bright = {name for name, channel in shapes.CHANNEL.items() if (pixels[..., channel] >= 160).any()}
        assert bright == {colour}


def test_pictures_have_the_shape_of_their_class():
    """By rules of their own: how full the shape's box is, its widths from above to below, its middle."""
    for row in shapes.rows("test"):
        mask = mask_of(row["image"])
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        widths, middle = box.sum(1), box[len(box) // 2, box.shape[1] // 2]
        if box.all():
            found = "square"
        elif not middle:
            found = "ring"
        elif (np.diff(widths) >= 0).all():
            found = "triangle"
        else:
            found = "cross"
        assert row["classes"][row["label"]].endswith(found)


def test_a_shape_drawn_by_hand():
    rows, columns = np.indices((7, 7)) - 3
    drawn = shapes.covered("triangle", rows, columns, 3)
    assert ["".join(" #"[cell] for cell in line) for line in drawn.astype(int)] == [
        "   #   ",
        "   #   ",
        "  ###  ",
        "  ###  ",
        " ##### ",
        " ##### ",
        "#######",
    ]


def test_a_test_picture_is_no_training_picture_under_other_noise():
    forms = {split: {picture[:-1] for picture in pictures} for split, pictures in PICTURES.items()}
    assert not forms["train"] & forms["test"] and not forms["train"] & forms["validation"]
    assert not forms["validation"] & forms["test"]
    assert all(len(pictures) == 3 * len(forms[split]) for split, pictures in PICTURES.items())


def test_every_class_is_there_and_about_as_often():
    for split in shapes.SPLITS:
        counts = Counter(row["label"] for row in shapes.rows(split))
        even = len(shapes.rows(split)) / len(shapes.CLASSES)
        assert set(counts) == set(range(len(shapes.CLASSES)))
        assert 0.4 * even < min(counts.values()) and max(counts.values()) < 1.8 * even


def test_pixels_do_not_change():
    found = hashlib.sha256(shapes.rows("test")[0]["image"].tobytes()).hexdigest()
    assert found == "10a7ff54ca1217f97cc961724bb6d62c06dd1d2491cfa3609d8e1bdbf4a6b0f5"


def test_size_cuts_the_training_split_only():
    assert len(shapes.rows("train", size=10)) == 10 and len(shapes.rows("test", size=10)) == 400
    np.testing.assert_array_equal(shapes.rows("train", size=10)[7]["image"], shapes.rows("train")[7]["image"])
    with pytest.raises(Problem, match="size=1000000 should lie between"):
        shapes.rows("train", size=1_000_000)
