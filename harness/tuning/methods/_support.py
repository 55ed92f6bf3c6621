"""Sparsity adaptation of SEFT: as many weights leave a layer's mask as were revived, those with the lowest score first.

    score_i = |W_eff_i * mean(g_i)|    (or |W_eff_i|), over the mask, just grown positions exempt

Xiao et al., "Leave it to the Specialist", arXiv:2505.24037, section 3.2; what the paper leaves open is decided here.

- A weight of 0 that no delta sits on (a revived one whose delta was dropped) scores 0, so it is the first to leave.
- Of the rest only the n positions are looked at whose score was lowest at the window's first gradient: their gradients
  are then summed, as those of the candidates for growth are. The sum over the whole mask would take a second matrix a
  layer. n are always enough: a round revives no more positions than it drops.
- A delta on a position that leaves moves to the next best candidate of the mask, as new; where no candidate is left,
  its position stays and the next lowest leaves.
- Equal scores go by their positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import BoolTensor, Tensor, isin

from harness.tuning.bits import Bits
from harness.tuning.methods._deltas import Band, added
from harness.tuning.methods._exchange import Look


def tensors(indices: Tensor) -> dict[str, Tensor]:
    """Returns room for the n positions whose sensitivity is summed."""
    return {"weak": torch.zeros_like(indices), "weak_sums": torch.zeros_like(indices, dtype=torch.float32)}


def look(keep: Bits, kept: Mapping[str, Tensor], last: bool) -> Look:
    """Returns the look at the positions of lowest sensitivity, which the window's first gradient names.

    Args:
        keep: [out, in].
        kept: The layer's state.
        last: Whether every gradient names them anew, so that the window's last one alone counts.
    """

    def size(band: Band) -> Tensor:
        stays = keep[band.rows].view(-1) & (band.weight != 0)
        return (band.weight * band.gradient).abs_().neg_().masked_fill_(~stays, -torch.inf)

    named = int(kept["count"]) > 0 and not last
    return Look(kept["weak"], kept["weak_sums"], None, None if named else size)


@dataclass(frozen=True)
class Leaving:
    """Positions that leave the mask, the slots that sit on them, and the candidate that each of these slots takes."""

    positions: Tensor
    slots: Tensor
    chosen: Tensor


def lowest(
    weight: Tensor,
    keep: BoolTensor,
    trained: Mapping[str, Tensor],
    exempt: Tensor,
    spare: Tensor,
    excess: int,
) -> Leaving:
    """Returns the `excess` positions of the mask with the lowest scores; nothing is changed.

    Args:
        weight: [out, in].
        keep: [out, in], with what was just grown.
        trained: The values and the layer's state, after the exchange.
        exempt: Flat positions that may not leave.
        spare: Numbers of candidates that slots may move to, best first.
        excess: How many leave.
    """
    slotted, candidates = trained["indices"].long(), trained["candidates"].long()
    pool = ordered(weight, keep, trained, exempt)[: excess + 2 * len(slotted)]  # at most so many are passed over
    spare = spare[keep.view(-1)[candidates[spare]] & ~isin(candidates[spare], slotted)]
    seated = isin(pool, slotted)
    spare = spare[~isin(candidates[spare], pool[:excess])][: int(seated[:excess].sum())]
    movable = ~seated | (seated.cumsum(0) <= len(spare))
    pool = pool[movable & ~isin(pool, candidates[spare])]
    positions = pool[:excess]
    slots = isin(slotted, positions).nonzero().view(-1)
    return Leaving(positions, slots, spare[: len(slots)])


def ordered(weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor], exempt: Tensor) -> Tensor:
    """Returns positions of the mask by ascending score: its zeros, then those looked at (without sums: all of them)."""
    open_ = keep.view(-1).clone()
    open_[exempt] = False
    with added(weight, trained["values"], trained["indices"]) as whole:
        flat = whole.view(-1)
        if "weak" not in trained:
            pool = open_.nonzero().view(-1)
            return pool[flat[pool].abs().argsort(stable=True)]
        zeros = (flat == 0).logical_and_(open_).nonzero().view(-1)
        weak, order = trained["weak"].long().sort()
        held = flat[weak]
    stays = open_[weak] & (held != 0)
    score = (held * trained["weak_sums"][order]).abs()[stays]
    return torch.cat([zeros, weak[stays][score.argsort(stable=True)]])
