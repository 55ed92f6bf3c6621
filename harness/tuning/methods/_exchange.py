"""The exchange of a layer's trained positions: those that moved least go, those with the largest gradients come.

The cycle of SpIEL-AG (arXiv:2401.16405, section 3.2; `SftSelector` of its release), after RigL (arXiv:1911.11134):

1. window: the first gradient names as many candidates as there are slots, its largest |g|; this one and those after it
   are summed at the candidates alone (sum g, sum g^2, and how many), a micro-batch at a time;
2. drop the share p of the slots with the smallest |d|; grow as many of the candidates that do not stay, by |sum g|; a
   position that is both dropped and grown is left as it is;
3. a grown one begins at 0 with the moments of its window: m = mean(g) (1 - beta1^age), v = mean(g^2) (1 - beta2^age),
   age = updates of the window. (The next update corrects by that age, though it adds one gradient more: the release's.)

A window is open from the start for `window` updates, and later from update `interval` - 1 of each interval on, for
`window` + 1. p is drop * (1 - t/T), after 1 in the first round (policy linear), or drop * (1 + cos(pi t/T)) / 2.

Different from the release: equal values go by their order (a stable sort), where theirs leaves that to `topk`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import BoolTensor, Tensor

from harness.problems import Problem
from harness.tuning.methods._deltas import CLOSED, marked


def check(interval: int, window: int) -> None:
    """Refuses an interval in which no window ends.

    Raises:
        Problem: The window is as long as the interval.
    """
    if window >= interval:
        what = f"a window of {window} updates does not end within an interval of {interval}"
        raise Problem(what, hint="interval must exceed window")


def tensors(indices: Tensor) -> dict[str, Tensor]:
    """Returns a layer's first state: its positions, an open window, and room for n candidates."""
    return {
        "indices": indices,
        "candidates": torch.zeros_like(indices),
        "sums": torch.zeros_like(indices, dtype=torch.float32),
        "squares": torch.zeros_like(indices, dtype=torch.float32),
        "count": torch.zeros((), dtype=torch.int32, device=indices.device),
    }


def observe(gradient: Tensor, kept: Mapping[str, Tensor], allowed: BoolTensor | None = None) -> None:
    """Adds a gradient [out, in] to the window's sums; the first one names the candidates.

    Args:
        gradient: Of the effective weight, float32.
        kept: The layer's state, changed in place.
        allowed: [out, in], where candidates may lie; None is anywhere.
    """
    flat = gradient.view(-1)
    if not int(kept["count"]):
        size = flat.abs() if allowed is None else flat.abs().masked_fill_(~allowed.view(-1), -1)
        kept["candidates"].copy_(size.topk(len(kept["candidates"]), sorted=False).indices)
        kept["sums"].zero_()
        kept["squares"].zero_()
    here = flat[kept["candidates"].long()]
    kept["sums"].add_(here)
    kept["squares"].addcmul_(here, here)
    kept["count"].add_(1)


def ends(step: int, interval: int, window: int) -> bool:
    """Whether a window ends with this update."""
    return step % interval == window


def begins(step: int, steps: int, interval: int, window: int) -> bool:
    """Whether a window begins after this update; one that would not end within `steps` does not."""
    return (step + 1) % interval == 0 and step + 1 + window <= steps


def updates(step: int, window: int) -> int:
    """Returns the updates in the window that ends with this one."""
    return window if step == window else window + 1


def share(step: int, steps: int, window: int, drop: float, policy: str) -> float:
    """Returns the share of the slots that are dropped after `step` of `steps` updates.

    Args:
        step: Updates done.
        steps: Updates of the whole run.
        window: Updates of the first window.
        drop: The share at the start.
        policy: "linear" or "cosine".
    """
    if policy == "linear":
        return 1.0 if step == window else drop * (1 - step / steps)
    return drop * (1 + math.cos(math.pi * step / steps)) / 2


@dataclass(frozen=True)
class Exchange:
    """Which slots take which candidates, both as numbers in their lists.

    Args:
        slots: Slots that change, of the smallest |d| first.
        chosen: The candidate that each takes, of the largest |sum g| first.
        grown: Every candidate that won, those included whose dropped slot is left as it is.
        spare: The candidates after them, best first.
    """

    slots: Tensor
    chosen: Tensor
    grown: Tensor
    spare: Tensor


def choose(weight: Tensor, values: Tensor, kept: Mapping[str, Tensor], part: float) -> Exchange:
    """Returns the exchange of a share of the slots.

    Args:
        weight: [out, in], for its size.
        values: [n].
        kept: The layer's state.
        part: The share of the slots that are dropped.
    """
    indices, candidates = kept["indices"], kept["candidates"].long()
    number = int(len(values) * part)
    slots = values.detach().abs().argsort(stable=True)[:number]
    leaving = marked(indices[slots], weight)
    staying = marked(indices, weight) & ~leaving
    ranked = kept["sums"].abs().argsort(descending=True, stable=True)
    ranked = ranked[~staying[candidates[ranked]]]
    grown, spare = ranked[:number], ranked[number:]
    slots = slots[~marked(candidates[grown], weight)[indices[slots].long()]]
    chosen = grown[~leaving[candidates[grown]]]
    return Exchange(slots[: len(chosen)], chosen, grown, spare)


def place(
    values: Tensor, kept: Mapping[str, Tensor], moments: Mapping[str, Tensor], slots: Tensor, chosen: Tensor, age: int
) -> None:
    """Gives slots new positions, with values of 0 and moments of the window, in place.

    Args:
        values: [n].
        kept: The layer's state.
        moments: The optimiser's state of the values.
        slots: Numbers of slots.
        chosen: As many numbers of candidates.
        age: The window's updates; 0 begins without moments.
    """
    kept["indices"][slots] = kept["candidates"][chosen]
    values.data[slots] = 0.0
    beta1, beta2 = moments["betas"]
    count = kept["count"].float()
    moments["age"][slots] = float(max(age, 1))
    moments["exp_avg"][slots] = (kept["sums"][chosen] / count * (1 - beta1**age)).to(values.dtype)
    moments["exp_avg_sq"][slots] = (kept["squares"][chosen] / count * (1 - beta2**age)).to(values.dtype)


def close(kept: Mapping[str, Tensor]) -> None:
    """Ends a window: gradients are not looked at any more."""
    kept["count"].fill_(CLOSED)


def open_again(kept: Mapping[str, Tensor]) -> None:
    """Begins a window: the next gradient names the candidates."""
    kept["count"].zero_()
