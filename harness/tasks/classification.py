"""Image classification: pixels in, one class of a fixed set out (ViT: Dosovitskiy et al., arXiv:2010.11929).

    prediction = argmax over classes of the logits;   accuracy = share of right predictions (top-1)

A picture is resized, cut and normalised as the model's own image processor says, nothing else: no augmentation, in
training too. The numbers of the data set's classes are the model's; a model of another number of classes is refused, in
calibration and training by the number that every example carries (`_lengths.fitting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.data._rows import Rows
from harness.problems import Problem
from harness.tasks._batches import Predictions, in_batches

READS = "image"
METRIC = "accuracy"


def _pixels(row: Mapping[str, Any], processor: Any) -> Tensor:
    """Returns what the model sees of a row's image, float32 [channels, height, width]."""
    made = processor(images=row["image"], input_data_format="channels_last", return_tensors="pt")
    return made["pixel_values"][0]


def examples(rows: Sequence[Mapping[str, Any]], processor: Any) -> Sequence[dict[str, Any]]:
    """Pixels and class of each picture, made on access.

    Args:
        rows: Rows with `image` (uint8 [height, width, 3]), `label` (the number of its class) and `classes`.
        processor: The image processor.

    Returns:
        `pixel_values` [channels, height, width], `labels`, an int, and `classes`, how many there are, each.
    """

    def example(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"pixel_values": _pixels(row, processor), "labels": row["label"], "classes": len(row["classes"])}

    return Rows(rows, example)


def collate(features: Sequence[Mapping[str, Any]], processor: Any) -> dict[str, Tensor]:
    """Returns `pixel_values` [batch, channels, height, width] and `labels` [batch]."""
    pixels = torch.stack([f["pixel_values"] for f in features])
    return {"pixel_values": pixels, "labels": torch.tensor([f["labels"] for f in features])}


def texts(row: Mapping[str, Any]) -> list[str]:
    """Returns the names of all classes in the order of their numbers: what a tiny model is made for."""
    return list(row["classes"])


def predict(model: Any, processor: Any, rows: Sequence[Mapping[str, Any]], start: int, batch_size: int) -> Predictions:
    """Classes of pictures, the one with the highest logit (top-1).

    Args:
        model: An image classifier.
        processor: Its image processor.
        rows: Rows with `image`, `label` (the number of its class) and `classes` (the names of all).
        start: Pictures done before.
        batch_size: Pictures a batch.

    Returns:
        Rows with `task`, `doc` (the picture's place), `label` and `prediction` (names of classes), `acc` (1 where they
        are one class, else 0) and `protocol`.

    Raises:
        Problem: The model tells another number of classes apart than the data set.
    """

    @torch.no_grad()
    def classify(batch: list[tuple[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        pixels = torch.stack([_pixels(row, processor) for _, row in batch])
        logits = model(pixel_values=pixels.to(model.device, model.dtype)).logits
        return [_judged(place, row, told, pixels) for (place, row), told in zip(batch, logits.cpu(), strict=True)]

    def _judged(place: int, row: Mapping[str, Any], logits: Tensor, pixels: Tensor) -> dict[str, Any]:
        classes, label = row["classes"], row["label"]
        if len(logits) != len(classes):
            raise Problem(f"the model knows {len(logits)} classes, and the data set has {len(classes)}")
        said = int(logits.argmax())
        seen = f"{type(processor).__name__} {pixels.shape[-2]}x{pixels.shape[-1]}"
        return {
            "task": "classification",
            "doc": place,
            "label": classes[label],
            "prediction": classes[said],
            "acc": float(said == label),
            "protocol": f"top-1 of {len(classes)} classes, {seen}",
        }

    return in_batches(Rows(range(len(rows)), lambda place: (place, rows[place])), start, batch_size, classify)
