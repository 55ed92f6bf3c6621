"""What a section reads: the rows that its `data`, `split` and `rows` name, and the examples its task makes of them.

Kept apart from training, whose libraries take a second to import: pruning needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from harness import rooms
from harness.data._rows import head
from harness.tuning.batches import steps_for_tokens

Collate = Callable[[Sequence[Any]], dict[str, Tensor]]


def rows_for(options: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Returns the rows that a section's `data`, `split` and `rows` name, lazily."""
    return head(rooms.bind("data", options["data"])(options["split"]), options["rows"])


def examples_for(
    rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any], processor: Any
) -> tuple[Sequence[Any], Collate]:
    """Returns the examples that a section's task makes of rows, and the function that collates them into a batch.

    A task that keeps its examples for later runs is told what decides the rows, and how many of them this run needs.
    """
    task = rooms.parse(options["task"]).name
    features = rooms.bind("task", options["task"], "examples")(rows, processor)
    if hasattr(features, "kept"):
        data, split = rooms.resolve("data", options["data"]), options["split"]
        identity = [rooms.bind("data", data, "source")([split]).identity, str(data), split, options["rows"]]
        features = features.kept(data.name, identity, _needed(options, features))
    return features, partial(rooms.load("task", task).collate, processor=processor)


def _needed(options: Mapping[str, Any], features: Sequence[Any]) -> int | None:
    """Returns how many examples a section's steps or tokens come to; None where it goes through all there are."""
    steps = options.get("steps")
    if options.get("tokens"):
        steps = steps_for_tokens(options["tokens"], features, options["batch_size"])
    return steps and steps * options["batch_size"]
