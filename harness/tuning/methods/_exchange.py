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

A micro-batch's gradient is its share of the step's. So with k micro-batches a step, as in the release, m is 1/k of what
moments of whole steps would be, and v between 1/k^2 and 1/k: what grows depends on k only by rounding, its first
updates do. `newborn=zero` of SEFT begins without.

Different from the release: equal values go by their order (a stable sort), where theirs leaves that to `topk`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, isin

from harness.problems import Problem
from harness.tuning.bits import Bits
from harness.tuning.methods._deltas import CLOSED, Band


def check(interval: int, window: int) -> None:
    """Refuses an interval in which no window ends.

    Raises:
        Problem: The window is as long as the interval.
    """
    if window >= interval:
        what = f"a window of {window} updates does not end within an interval of {interval}"
        raise Problem(what, hint="interval must exceed window")


def tensors(indices: Tensor, squares: bool = True) -> dict[str, Tensor]:
    """Returns a layer's first state: its positions, an open window, and room for n candidates.

    Args:
        indices: [n], flat positions.
        squares: Whether second moments are made of the window, and so its squares are summed.
    """
    made = {"indices": indices, "candidates": torch.zeros_like(indices)}
    for name in ("sums", "squares") if squares else ("sums",):
        made[name] = torch.zeros_like(indices, dtype=torch.float32)
    return {**made, "count": torch.zeros((), dtype=torch.int32, device=indices.device)}


@dataclass(frozen=True)
class Look:
    """What is summed over a window: gradients at some positions.

    Attributes:
        positions: [n].
        sums: [n], float32.
        squares: [n], sums of their squares; None where these are not needed.
        size: Names the positions anew, those where it is largest in the whole layer: from a band to its sizes; None
            adds at the positions that were named before.
    """

    positions: Tensor
    sums: Tensor
    squares: Tensor | None
    size: Callable[[Band], Tensor] | None


def candidates(kept: Mapping[str, Tensor], allowed: Bits | None = None) -> Look:
    """Returns the look at the candidates, which the window's first gradient names: its largest.

    Args:
        kept: The layer's state.
        allowed: [out, in], where candidates may lie; None is anywhere.
    """

    def size(band: Band) -> Tensor:
        found = band.gradient.abs()
        if allowed is None:
            return found
        return found.masked_fill_(~allowed[band.rows].view(-1), -1)

    named = int(kept["count"]) > 0
    return Look(kept["candidates"], kept["sums"], kept.get("squares"), None if named else size)


def observe(bands: Iterable[Band], kept: Mapping[str, Tensor], looks: Sequence[Look]) -> None:
    """Goes through the bands of one gradient and adds it to the window's sums, in place.

    Args:
        bands: Of the layer.
        kept: The layer's state.
        looks: What is summed.
    """
    sizes: dict[int, Tensor] = {}
    for band in bands:
        for number, look in enumerate(looks):
            if look.size is not None:
                sizes[number] = _name(look, band, sizes.get(number))
                continue
            inside, places = band.within(look.positions)
            here = band.gradient[places]
            look.sums[inside] += here
            if look.squares is not None:
                look.squares[inside] += here * here
    for look in (looks[number] for number in sizes):
        if look.squares is not None:
            torch.mul(look.sums, look.sums, out=look.squares)
    kept["count"].add_(1)


def _name(look: Look, band: Band, before: Tensor | None) -> Tensor:
    """Names the positions of the largest sizes in a band and in those before it, with their gradients as sums.

    Args:
        look: Where they are put, from the first number on.
        band: The band.
        before: The sizes of what the bands before it named; None in the first band.

    Returns:
        The sizes of what is named now.
    """
    most, sizes = len(look.positions), look.size(band)
    if before is not None and len(before) == most:
        places = (sizes > before.min()).nonzero().view(-1)
        sizes = sizes[places]
    else:
        sizes, places = _top(sizes, most)
    found = {"positions": places.to(look.positions.dtype) + band.start, "sums": band.gradient[places]}
    if before is not None:
        sizes, places = _top(torch.cat([before, sizes]), most)
    for name, values in found.items():
        held = getattr(look, name)
        held[: len(sizes)] = values if before is None else torch.cat([held[: len(before)], values])[places]
    return sizes


def _top(sizes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the `count` largest of some sizes, or as many as there are, and their places."""
    return tuple(sizes.topk(min(count, len(sizes)), sorted=False))


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


def choose(values: Tensor, kept: Mapping[str, Tensor], part: float) -> Exchange:
    """Returns the exchange of a share of the slots.

    Args:
        values: [n].
        kept: The layer's state.
        part: The share of the slots that are dropped.
    """
    indices, candidates = kept["indices"].long(), kept["candidates"].long()
    number = int(len(values) * part)
    slots = values.detach().abs().argsort(stable=True)[:number]
    leaving = isin(candidates, indices[slots])
    staying = isin(candidates, indices) & ~leaving
    ranked = kept["sums"].abs().argsort(descending=True, stable=True)
    ranked = ranked[~staying[ranked]]
    grown, spare = ranked[:number], ranked[number:]
    slots = slots[~isin(indices[slots], candidates[grown])]
    chosen = grown[~leaving[grown]]
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
        age: The window's updates; 0 begins without moments, which take no squares.
    """
    kept["indices"][slots] = kept["candidates"][chosen]
    values.data[slots] = 0.0
    moments["age"][slots] = float(max(age, 1))
    for name, sums, beta in zip(("exp_avg", "exp_avg_sq"), ("sums", "squares"), moments["betas"], strict=True):
        moments[name][slots] = 0.0
        if age:
            moments[name][slots] = (kept[sums][chosen] / kept["count"].float() * (1 - beta**age)).to(values.dtype)


def close(kept: Mapping[str, Tensor]) -> None:
    """Ends a window: gradients are not looked at any more."""
    kept["count"].fill_(CLOSED)


def open_again(kept: Mapping[str, Tensor]) -> None:
    """Begins a window: the next gradient names the candidates."""
    kept["count"].zero_()
