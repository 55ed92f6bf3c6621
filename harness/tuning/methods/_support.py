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
from torch import BoolTensor, Tensor

from harness.tuning.methods._deltas import Band, effective, marked
from harness.tuning.methods._exchange import Look


def tensors(indices: Tensor) -> dict[str, Tensor]:
    """Returns room for the n positions whose sensitivity is summed."""
    return {"weak": torch.zeros_like(indices), "weak_sums": torch.zeros_like(indices, dtype=torch.float32)}


def look(keep: BoolTensor, kept: Mapping[str, Tensor], last: bool) -> Look:
    """Returns the look at the positions of lowest sensitivity, which the window's first gradient names.

    Args:
        keep: [out, in].
        kept: The layer's state.
        last: Whether every gradient names them anew, so that the window's last one alone counts.
    """

    def size(band: Band) -> Tensor:
        stays = keep.view(-1)[band.start : band.start + len(band.weight)] & (band.weight != 0)
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
    exempt: BoolTensor,
    spare: Tensor,
    excess: int,
) -> Leaving:
    """Returns the `excess` positions of the mask with the lowest scores; nothing is changed.

    Args:
        weight: [out, in].
        keep: [out, in], with what was just grown.
        trained: The values and the layer's state, after the exchange.
        exempt: Flat mask, True where nothing may leave.
        spare: Numbers of candidates that slots may move to, best first.
        excess: How many leave.
    """
    slotted = marked(trained["indices"], weight)
    pool = ordered(weight, keep, trained, exempt)
    candidates = trained["candidates"].long()
    spare = spare[(keep.view(-1) & ~slotted)[candidates[spare]]]
    spare = spare[~marked(pool[:excess], weight)[candidates[spare]]][: int(slotted[pool[:excess]].sum())]
    seated = slotted[pool]
    movable = ~seated | (seated.cumsum(0) <= len(spare))
    pool = pool[movable & ~marked(candidates[spare], weight)[pool]]
    positions = pool[:excess]
    slots = marked(positions, weight)[trained["indices"].long()].nonzero().view(-1)
    return Leaving(positions, slots, spare[: len(slots)])


def ordered(weight: Tensor, keep: BoolTensor, trained: Mapping[str, Tensor], exempt: BoolTensor) -> Tensor:
    """Returns positions of the mask by ascending score: its zeros, then those looked at (without sums: all of them)."""
    whole = effective(weight, trained["values"], trained["indices"], torch.float32).view(-1)
    open_ = keep.view(-1) & ~exempt
    if "weak" not in trained:
        pool = open_.nonzero().view(-1)
        return pool[whole[pool].abs().argsort(stable=True)]
    zeros = (open_ & (whole == 0)).nonzero().view(-1)
    weak, order = trained["weak"].long().sort()
    score = (whole[weak] * trained["weak_sums"][order]).abs()
    weak = weak[score.argsort(stable=True)]
    return torch.cat([zeros, weak[(open_ & (whole != 0))[weak]]])
