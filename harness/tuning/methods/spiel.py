"""SpIEL: sparse deltas on a frozen weight whose positions move to where gradients are large; zeros are not kept.

Ansell et al., "Scaling Sparse Fine-Tuning to Large Language Models", arXiv:2401.16405: SpIEL-AG, with the defaults of
its release (`_deltas.py`, `_exchange.py`). Positions are drawn from the whole matrix, pruned weights included: on a
pruned model the result has at most nnz(W) + n nonzeros a layer. That budget is this method's own (`KEEPS`): its mask is
the pruned model's together with its n positions, and moves with them. An N:M mask would not stay one, and is refused.

Different from the release: the budget is a share of each pruned layer's own weights, where theirs is one of all
parameters, embeddings included, that the layers share out by their sizes; `rank` is exact in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

import torch
from torch import BoolTensor, Tensor

from harness.ranges import Count, Fraction
from harness.tuning.bits import Bits
from harness.tuning.methods import _deltas, _exchange

FREEZES = True
AGED = True
KEEPS = False
ONLY_WITH = {"density": {"rank": None}}


def prepare(
    weight: Tensor, keep: BoolTensor, *, density: Fraction = 0.01, rank: Count | None = None
) -> dict[str, Tensor]:
    """SpIEL: sparse deltas that move to the largest gradients; on a pruned model they may fill zeros.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
        density: Values that are trained, as a share of the layer's weights.
        rank: As many values as a LoRA of this rank has, instead.

    Returns:
        `values` [n] of zeros, in float32 at least.

    Raises:
        Problem: The mask is N:M and would not stay so.
    """
    _deltas.refuse_pattern(keep, "seft:reactivate=false keeps it")
    number = _deltas.budget(weight.shape, density, rank)
    return {"values": weight.new_zeros(number, dtype=torch.promote_types(weight.dtype, torch.float32))}


def budget(keep: BoolTensor, *, density: Fraction = 0.01, rank: Count | None = None) -> int:
    """Returns nnz + n: the mask [out, in] of the pruned model and as many positions as there are values."""
    return int(keep.sum()) + _deltas.budget(keep.shape, density, rank)


def state(
    weight: Tensor,
    keep: BoolTensor,
    *,
    density: Fraction = 0.01,
    rank: Count | None = None,
    interval: Count = 20,
    window: Count = 5,
) -> dict[str, Tensor]:
    """Returns random positions `indices` [n] of the matrix, whether the mask `held` each before, and the window.

    Args:
        weight: [out, in].
        keep: [out, in].
        density: As in `prepare`.
        rank: Likewise.
        interval: Updates from one exchange to the next.
        window: Updates whose gradients an exchange looks at.

    Raises:
        Problem: There are more values than weights, or no window ends within an interval.
    """
    _exchange.check(interval, window)
    indices = _deltas.places(weight, None, _deltas.budget(weight.shape, density, rank))
    return {**_exchange.tensors(indices), "held": keep.view(-1)[indices.long()]}


def adapt(x: Tensor, weight: Tensor, keep: Bits, trained: Mapping[str, Tensor]) -> Tensor:
    """Returns x (W + deltas)^T; in a window its backward sums the gradient at the candidates."""
    watch = partial(_watch, kept=trained)
    return _deltas.linear(x, weight, trained["values"], trained["indices"], trained["count"], watch)


def _watch(bands: Iterator[_deltas.Band], kept: Mapping[str, Tensor]) -> None:
    _exchange.observe(bands, kept, [_exchange.candidates(kept)])


def evolve(
    weight: Tensor,
    keep: Bits,
    trained: Mapping[str, Tensor],
    moments: Mapping[str, Mapping[str, Tensor]],
    step: int,
    steps: int,
    *,
    interval: Count = 20,
    window: Count = 5,
    drop: Fraction = 0.2,
    policy: Literal["linear", "cosine"] = "linear",
) -> None:
    """Exchanges positions where a window ends, and opens the next one.

    Args:
        weight: [out, in]; not changed.
        keep: [out, in]; the pruned model's mask and the positions, in place.
        trained: `values` and the state, in place.
        moments: The optimiser's state of `values`, in place.
        step: Updates done.
        steps: Updates of the whole run.
        interval: As in `state`.
        window: Likewise.
        drop: Share of the slots that the first exchange drops.
        policy: How the share falls; `linear` exchanges all of them the first time.
    """
    if step == 1:
        whole = keep[:]
        whole.view(-1)[trained["indices"].long()] = True
        keep[:] = whole
    if _exchange.ends(step, interval, window):
        if int(trained["count"]) > 0:
            part = _exchange.share(step, steps, window, drop, policy)
            found = _exchange.choose(trained["values"], trained, part)
            whole = keep[:]
            flat = whole.view(-1)
            flat[trained["indices"][found.slots].long()] = trained["held"][found.slots]
            age = _exchange.updates(step, window)
            _exchange.place(trained["values"], trained, moments["values"], found.slots, found.chosen, age)
            taken = trained["indices"][found.slots].long()
            trained["held"][found.slots] = flat[taken]
            flat[taken] = True
            keep[:] = whole
        _exchange.close(trained)
    if _exchange.begins(step, steps, interval, window):
        _exchange.open_again(trained)


def merge(weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor]) -> Tensor:
    """Returns the weight with its deltas added, [out, in]."""
    return _deltas.effective(weight, trained["values"], trained["indices"])
