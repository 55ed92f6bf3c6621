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

Collate = Callable[[Sequence[Any]], dict[str, Tensor]]


def rows_for(options: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Returns the rows that a section's `data`, `split` and `rows` name, lazily."""
    return head(rooms.bind("data", options["data"])(options["split"]), options["rows"])


def examples_for(
    rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any], processor: Any
) -> tuple[Sequence[Any], Collate]:
    """Returns the examples that a section's task makes of rows, and the function that collates them into a batch."""
    task = rooms.parse(options["task"]).name
    features = rooms.bind("task", options["task"], "examples")(rows, processor)
    return features, partial(rooms.load("task", task).collate, processor=processor)
