"""Image classification: what the model sees, the class it says, and how that is judged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness import rooms
from harness.data import shapes
from harness.metrics import accuracy
from harness.problems import Problem
from harness.tasks import classification
from harness.tasks._lengths import fitting


@pytest.fixture(scope="module")
def rows():
    return [shapes.rows("train")[at] for at in range(12)]


@pytest.fixture(scope="module")
def vit():
    return rooms.load("model", "vit").tiny(shapes.CLASSES, seed=1)


def test_the_model_sees_what_its_processor_makes(vit, rows):
    example = classification.examples(rows, vit[1])[3]
    assert example["labels"] == rows[3]["label"]
    expected = (rows[3]["image"].astype(np.float32) / 255 - 0.5) / 0.5
    torch.testing.assert_close(example["pixel_values"], torch.from_numpy(expected).permute(2, 0, 1))


def test_pictures_of_any_size_become_the_models(vit):
    pictures = [np.full((height, width, 3), 128, np.uint8) for height, width in ((3, 3), (40, 20), (1, 64))]
    rows = [{"image": each, "label": 0, "classes": shapes.CLASSES} for each in pictures]
    examples = classification.examples(rows, vit[1])
    batch = classification.collate([examples[i] for i in range(3)], vit[1])
    assert batch["pixel_values"].shape == (3, 3, 32, 32) and batch["labels"].tolist() == [0, 0, 0]
    torch.testing.assert_close(batch["pixel_values"], torch.full((3, 3, 32, 32), 128 / 255 * 2 - 1))


def test_predictions_are_the_models_argmax_and_hits_are_equal_names(vit, rows):
    model, processor = vit
    examples = classification.examples(rows, processor)
    batch = classification.collate([examples[i] for i in range(12)], processor)
    with torch.no_grad():
        said = model(pixel_values=batch["pixel_values"]).logits.argmax(1)
    found = list(classification.predict(model, processor, rows, 0, 5))
    assert [row["prediction"] for row in found] == [shapes.CLASSES[number] for number in said]
    assert [row["label"] for row in found] == [shapes.CLASSES[row["label"]] for row in rows]
    assert [row["acc"] for row in found] == [float(row["label"] == row["prediction"]) for row in found]
    assert [row["doc"] for row in found] == list(range(12))
    assert found[0]["protocol"] == "top-1 of 12 classes, ViTImageProcessorPil 32x32"


def test_the_metric_is_the_share_of_hits(vit, rows):
    model, processor = vit
    said = classification.predict(model, processor, rows, 0, 4)
    names = [row["prediction"] for row in said]
    half = [{**row, "label": shapes.CLASSES.index(name)} for row, name in zip(rows, names, strict=True)]
    wrong = [{**row, "label": (row["label"] + 1) % 12} for row in half[:6]]
    score = accuracy.score(classification.predict(model, processor, wrong + half[6:], 0, 4))["accuracy"]
    assert score.value == 50 and score.count == 12 and score.higher_is_better
    assert score.stderr == pytest.approx(100 * (0.25 / 11) ** 0.5)
    assert score.protocol == "mean acc of top-1 of 12 classes, ViTImageProcessorPil 32x32"


def test_a_model_of_other_classes_is_refused(rows):
    model, processor = rooms.load("model", "vit").tiny(["one", "two"], seed=0)
    with pytest.raises(Problem, match="the model knows 2 classes, and the data set has 12"):
        list(classification.predict(model, processor, rows, 0, 4))


@pytest.mark.parametrize("classes", [3, 1000])
def test_examples_of_other_classes_than_the_models_are_refused(rows, vit, classes):
    """Too many outputs would learn silently, and too few would fail at a label beyond them."""
    own, processor = vit
    examples = classification.examples(rows, processor)
    assert fitting(examples, own)[4]["labels"] == rows[4]["label"]
    other, _ = rooms.load("model", "vit").tiny([f"class {at}" for at in range(classes)], seed=0)
    with pytest.raises(Problem, match=f"row 4: the model knows {classes} classes, and the data set has 12"):
        fitting(examples, other)[4]


def test_texts_are_the_classes_of_a_tiny_model(rows):
    model, _ = rooms.load("model", "vit").tiny((t for row in rows[:2] for t in classification.texts(row)), seed=0)
    assert tuple(model.config.id2label.values()) == shapes.CLASSES


def test_a_tiny_vit_learns_a_colour(vit):
    """Two classes that differ in colour alone: enough to see that pixels and labels belong together."""
    model, processor = rooms.load("model", "vit").tiny(shapes.CLASSES, seed=0)
    wanted = [row for row in (shapes.rows("train")[at] for at in range(300)) if row["label"] in (2, 10)]
    examples = classification.examples(wanted, processor)
    batch = classification.collate([examples[i] for i in range(len(wanted))], processor)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
    for _ in range(12):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    test = [row for row in shapes.rows("test") if row["label"] in (2, 10)]
    hits = [row["acc"] for row in classification.predict(model.eval(), processor, test, 0, 50)]
    assert len(hits) > 40 and sum(hits) / len(hits) > 0.95
