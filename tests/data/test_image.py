from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from harness.data._image import decode
from harness.problems import Problem


def saved(pixels, mode, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()


def test_rgb_comes_back_as_it_was():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    found = decode(saved(pixels, "RGB"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("P", "GIF")])
def test_other_modes_become_rgb(mode, kind):
    pixels = np.full((4, 6, 3), 100, np.uint8)
    found = decode(saved(pixels, mode, kind))
    assert found.shape == (4, 6, 3) and np.abs(found.astype(int) - 100).max() <= 3


def test_what_is_no_picture_is_named():
    with pytest.raises(Problem, match=r"cannot decode n01\.JPEG"):
        decode(b"no picture", "n01.JPEG")
