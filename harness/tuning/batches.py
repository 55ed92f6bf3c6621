"""Which rows a step trains on: a new seeded permutation every epoch, cut into batches; the step alone decides.

No position is ever stored: a resumed run asks for its next step's batch and gets what an uninterrupted run would.
An epoch is ceil(rows / batch) steps: no row is dropped, and an epoch's last batch may be smaller than the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy
from torch import Tensor

from harness.problems import Problem

Collate = Callable[[list[Any]], Mapping[str, Tensor]]


def steps_for(epochs: float, rows: int, batch_size: int) -> int:
    """Returns the steps of so many passes over the rows, the last batch of a pass counting as a step: at least 1."""
    return max(1, round(epochs * -(-rows // batch_size)))


def steps_for_tokens(tokens: int, features: Sequence[Any], batch_size: int) -> int:
    """Returns the steps that train on at least so many tokens, of text in windows of one length.

    Args:
        tokens: How many.
        features: The training examples: windows that say their `length`; or each with `input_ids`, and then every one
            is looked at.
        batch_size: Examples a step.

    Raises:
        Problem: The examples are no windows of one length, so that a step has no fixed number of tokens.
    """
    return math.ceil(tokens / (_window(features) * batch_size))


def _window(features: Sequence[Any]) -> int:
    """Returns how many tokens every example has."""
    if said := getattr(features, "length", None):
        return said
    length = _length(features[0])
    odd = next((row for row in range(len(features)) if _length(features[row]) != length), None)
    if odd is not None or not length:
        hint = "language_modelling cuts text into such windows; give steps or epochs for other tasks"
        said = f": row {odd} has {_length(features[odd])} tokens, row 0 {length}" if odd else ""
        raise Problem(f"a budget of tokens needs text in windows of one length{said}", where="tokens", hint=hint)
    return length


def _length(feature: Mapping[str, Any]) -> int:
    return len(feature.get("input_ids", ()))


def rows_of(step: int, rows: int, batch_size: int, seed: int) -> list[int]:
    """Returns the indices of the rows that a step trains on.

    Args:
        step: Steps done before, from 0.
        rows: Rows there are.
        batch_size: Rows a step, over all its micro-batches.
        seed: Of the data order; each epoch has its own permutation.
    """
    epoch, position = divmod(step, -(-rows // batch_size))
    return _order(rows, seed, epoch)[position * batch_size : (position + 1) * batch_size].tolist()


@lru_cache(maxsize=1)  # drawing it for every step would cost 0.2 s a step with 4.5 million rows
def _order(rows: int, seed: int, epoch: int) -> numpy.ndarray:
    return numpy.random.default_rng([seed, epoch]).permutation(rows)


def batches(
    features: Sequence[Any], collate: Collate, *, batch_size: int, micro_batch: int, seed: int
) -> Callable[..., list[Mapping[str, Tensor]]]:
    """Returns the function from a step to its micro-batches, or to one process's share of each.

    The function takes the step, and where several processes share it which of how many this is; a micro-batch's rows
    are dealt out among them. A step with a micro-batch of fewer rows than processes is given whole to each.

    Args:
        features: The training examples, indexed one by one when their step comes.
        collate: Makes one padded batch of some examples.
        batch_size: Examples a step.
        micro_batch: Examples a forward, of all processes together; the last micro-batch of a step may be smaller.
        seed: Of the data order.
    """

    def of(step: int, process: int = 0, processes: int = 1) -> list[Mapping[str, Tensor]]:
        chosen = rows_of(step, len(features), batch_size, seed)
        parts = [chosen[at : at + micro_batch] for at in range(0, len(chosen), micro_batch)]
        if min(map(len, parts)) >= processes:
            parts = [part[process::processes] for part in parts]
        return [collate([features[row] for row in part]) for part in parts]

    return of
