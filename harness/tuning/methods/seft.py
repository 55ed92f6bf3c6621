"""SEFT: sparse deltas on a pruned model; where they revive pruned weights, as many insensitive ones are pruned instead.

Xiao et al., "Leave it to the Specialist: Repair Sparse LLMs with Sparse Fine-Tuning via Sparsity Evolution",
arXiv:2505.24037, sections 3.1 and 3.2; drop, grow, adapt every `interval` updates. Dropping and growing are SpIEL's
(`_exchange.py`), adapting is in `_support.py`. The layer's mask is the support: as many positions after every round as
before, and the weight is 0 outside.

The paper's code could not be had, and its abstract and reviews leave open what the options name. Decided here besides:
a position that leaves the mask is set to 0 in place; a dropped delta on a pruned position stays in the mask as a zero
until the same round's adapting takes it, first of all; just grown positions are exempt, because their weight is 0, and
so is their score: without that (`exempt=false`) adapting undoes every revival, which is the run without reactivation.
`prune=end` adapts once, after the last update, with gradients of the last `window` ones: until then the mask grows.
`initial=all` draws from pruned positions too; a delta there rests at 0 until a round grows or moves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

import torch
from torch import BoolTensor, Tensor

from harness.ranges import Count, Fraction
from harness.tuning.bits import Bits
from harness.tuning.methods import _deltas, _exchange, _support

FREEZES = True
AGED = True
REVIVES = "reactivate"
ONLY_WITH = {
    "density": {"rank": None},
    "score": {"reactivate": True},
    "sensitivity": {"reactivate": True, "score": "sensitivity"},
    "prune": {"reactivate": True},
    "exempt": {"reactivate": True, "prune": "round"},
}


def prepare(
    weight: Tensor, keep: BoolTensor, *, density: Fraction = 0.01, rank: Count | None = None, reactivate: bool = True
) -> dict[str, Tensor]:
    """SEFT: sparse deltas that may revive pruned weights; as many insensitive ones are pruned instead.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
        density: Values that are trained, as a share of the layer's weights.
        rank: As many values as a LoRA of this rank has, instead.
        reactivate: Lets deltas grow on pruned weights; false fixes the mask, which N:M needs.

    Returns:
        `values` [n] of zeros, in float32 at least.

    Raises:
        Problem: There are more values than weights that stay, or the mask is N:M and would not stay so.
    """
    number = _deltas.budget(weight.shape, density, rank)
    _deltas.enough(int(keep.sum()), number)
    if reactivate:
        _deltas.refuse_pattern(keep, "write seft:reactivate=false")
    return {"values": weight.new_zeros(number, dtype=torch.promote_types(weight.dtype, torch.float32))}


def state(
    weight: Tensor,
    keep: BoolTensor,
    *,
    density: Fraction = 0.01,
    rank: Count | None = None,
    reactivate: bool = True,
    initial: Literal["live", "all"] = "live",
    score: Literal["sensitivity", "magnitude"] = "sensitivity",
    newborn: Literal["seeded", "zero"] = "seeded",
    interval: Count = 60,
    window: Count = 5,
) -> dict[str, Tensor]:
    """Returns random positions `indices` [n], the open window, the size `support` of the mask and room for scores.

    Args:
        weight: [out, in].
        keep: [out, in].
        density: As in `prepare`.
        rank: Likewise.
        reactivate: Likewise.
        initial: Where the first positions lie: in the mask, or anywhere.
        score: What decides which weights leave the mask.
        newborn: As in `evolve`; only `seeded` needs the sums of squares.
        interval: Updates from one round to the next: 60 was best for C4, 10 for commonsense reasoning.
        window: Updates whose gradients a round looks at.

    Raises:
        Problem: There are more values than weights that stay, or no window ends within an interval.
    """
    _exchange.check(interval, window)
    number = _deltas.budget(weight.shape, density, rank)
    indices = _deltas.places(weight, keep if initial == "live" else None, number)
    scored = _support.tensors(indices) if reactivate and score == "sensitivity" else {}
    return {**_exchange.tensors(indices, newborn == "seeded"), **scored, "support": keep.sum(dtype=torch.int32)}


def adapt(
    x: Tensor,
    weight: Tensor,
    keep: Bits,
    trained: Mapping[str, Tensor],
    *,
    reactivate: bool = True,
    initial: Literal["live", "all"] = "live",
    sensitivity: Literal["window", "last"] = "window",
) -> Tensor:
    """Returns x (W + deltas)^T; in a window its backward sums the gradients that a round looks at.

    Args:
        x: [..., in].
        weight: [out, in].
        keep: [out, in].
        trained: `values` and the state.
        reactivate: As in `prepare`.
        initial: As in `state`.
        sensitivity: The gradient in the score: the window's mean, or that of its last micro-batch.
    """
    values, indices = trained["values"], trained["indices"]
    if initial == "all":
        values = values * keep.at(indices.long())
    watch = partial(_watch, keep=keep, kept=trained, reactivate=reactivate, sensitivity=sensitivity)
    return _deltas.linear(x, weight, values, indices, trained["count"], watch)


def _watch(
    bands: Iterator[_deltas.Band],
    keep: Bits,
    kept: Mapping[str, Tensor],
    reactivate: bool,
    sensitivity: str,
) -> None:
    looks = [_exchange.candidates(kept, None if reactivate else keep)]
    if "weak" in kept:
        looks.append(_support.look(keep, kept, sensitivity == "last"))
    _exchange.observe(bands, kept, looks)


def evolve(
    weight: Tensor,
    keep: Bits,
    trained: Mapping[str, Tensor],
    moments: Mapping[str, Mapping[str, Tensor]],
    step: int,
    steps: int,
    *,
    reactivate: bool = True,
    interval: Count = 60,
    window: Count = 5,
    drop: Fraction = 0.2,
    policy: Literal["cosine", "linear"] = "cosine",
    newborn: Literal["seeded", "zero"] = "seeded",
    prune: Literal["round", "end"] = "round",
    exempt: bool = True,
) -> None:
    """Makes a round where a window ends, and opens the next one.

    Args:
        weight: [out, in]; what leaves the mask becomes 0, in place.
        keep: [out, in], in place; as many stay as before.
        trained: `values` and the state, in place.
        moments: The optimiser's state of `values`, in place.
        step: Updates done.
        steps: Updates of the whole run.
        reactivate: As in `prepare`.
        interval: As in `state`.
        window: Likewise.
        drop: Share of the slots that the first round drops.
        policy: How the share falls; `linear` exchanges all of them in the first round.
        newborn: Moments of grown positions: of their window's gradients, or zero.
        prune: When the mask is brought back to its size: in every round, or after the last update.
        exempt: Whether just grown positions cannot leave the mask in the same round.
    """
    finishes = prune == "end" and reactivate
    last = steps - window if finishes else steps
    seen = int(trained["count"]) > 0
    if _exchange.ends(step, interval, window) and step <= last:
        if seen:
            part = _exchange.share(step, steps, window, drop, policy)
            age = _exchange.updates(step, window) if newborn == "seeded" else 0
            _round(weight, keep, trained, moments["values"], part, age, exempt, prune == "round")
        _exchange.close(trained)
    if finishes and step == steps and seen:
        _finish(weight, keep, trained)
    if _exchange.begins(step, last, interval, window) or (finishes and step == last):
        _exchange.open_again(trained)


def _round(
    weight: Tensor,
    mask: Bits,
    trained: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    part: float,
    age: int,
    exempt: bool,
    prunes: bool,
) -> None:
    """Drops and grows; with `prunes`, as many positions then leave the mask as were grown outside it."""
    candidates, keep = trained["candidates"].long(), mask[:]
    flat = keep.view(-1)
    found = _exchange.choose(trained["values"], trained, part)
    _exchange.place(trained["values"], trained, moments, found.slots, found.chosen, age)
    grown = candidates[found.grown]
    revived = grown[~flat[grown]]
    flat[revived] = True
    if prunes and len(revived):
        young = torch.cat([candidates[found.chosen], revived]) if exempt else revived[:0]
        leaving = _support.lowest(weight, keep, trained, young, found.spare, len(revived))
        _exchange.place(trained["values"], trained, moments, leaving.slots, leaving.chosen, age)
        _leave(weight, keep, leaving.positions)
    mask[:] = keep


def _finish(weight: Tensor, mask: Bits, trained: Mapping[str, Tensor]) -> None:
    """Brings the mask back to its size after the last update; deltas on what leaves end at 0."""
    keep = mask[:]
    excess = int(keep.sum() - trained["support"])
    indices = trained["indices"].long()
    positions = _support.ordered(weight, keep, trained, indices[:0])[:excess]
    gone = torch.isin(indices, positions)
    trained["values"].data[gone] = 0.0
    _leave(weight, keep, positions)
    mask[:] = keep


def _leave(weight: Tensor, keep: BoolTensor, positions: Tensor) -> None:
    keep.view(-1)[positions] = False
    weight.data.view(-1)[positions] = 0


def merge(weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor]) -> Tensor:
    """Returns the weight with its deltas added, [out, in]; outside the mask both are 0."""
    return _deltas.effective(weight, trained["values"], trained["indices"])
