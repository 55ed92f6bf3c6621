from __future__ import annotations

import io

import datasets
import numpy as np
import pytest
from PIL import Image

from harness.data import imagenet
from harness.problems import Problem

NAMES = ["tench, Tinca tinca", "crane", "maillot", "crane bird"]


def picture(grey):
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), grey, np.uint8)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{grey}.png"}


@pytest.fixture
def mirrored(put):
    """Puts pictures with class numbers into a mirror, as Parquet that names the classes, or not."""

    def write(labels, *, named=True):
        folder = put(imagenet.NAME, {"default": {"validation": [{"label": 0}], "train": [{"label": 0}]}})
        label = datasets.ClassLabel(names=NAMES) if named else datasets.Value("int64")
        features = datasets.Features({"image": datasets.Image(), "label": label})
        content = {"image": [picture(10 * at) for at, _ in enumerate(labels)], "label": labels}
        data = datasets.Dataset.from_dict(content, features=features)
        data.to_parquet(folder / "default" / "validation.parquet")

    return write


def test_rows_are_pixels_and_numbered_names(mirrored):
    mirrored([2, 0, 3])
    rows = imagenet.rows("validation")
    assert [row["label"] for row in rows] == [2, 0, 3]
    assert rows[0]["classes"] == ("tench, Tinca tinca", "crane", "maillot", "crane bird")
    assert [row["image"].shape for row in rows] == [(6, 8, 3)] * 3
    assert [int(row["image"][0, 0, 0]) for row in rows] == [0, 10, 20]


def test_pictures_are_decoded_when_they_are_read(mirrored, monkeypatch):
    mirrored([1, 0])
    decoded = []
    monkeypatch.setattr("harness.data._image.decode", lambda data, name: decoded.append(name))
    rows = imagenet.rows("validation")
    assert [row["label"] for row in rows] == [1, 0] and not decoded
    rows[1]["image"]
    assert decoded == ["10.png"]


def test_a_copy_without_the_classes_names_is_a_problem(mirrored):
    mirrored([1], named=False)
    with pytest.raises(Problem, match="does not name its classes"):
        imagenet.rows("validation")


def test_the_test_split_whose_labels_nobody_has_is_no_split():
    with pytest.raises(Problem, match="unknown split of ILSVRC/imagenet-1k 'test'"):
        imagenet.source(["test"])
