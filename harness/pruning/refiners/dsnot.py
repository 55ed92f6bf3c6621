"""DSnoT: swaps pruned weights for kept ones so that each output's expected error falls; no weight changes its value.

Zhang et al., "Dynamic Sparse No Training", arXiv:2310.08915. A row's expected error is e = sum over its pruned weights
of c_j, c_j = w_j * total_j. A cycle grows the pruned weight with the largest c_j / variance_j^power of e's sign, prunes
the kept weight with the lowest Wanda score whose c_j has the other sign, and adds c_pruned - c_grown to e; a row stops
once |e| <= threshold. In N:M the weight to prune is the one with the criterion's lowest score, of either sign, in the
group of the grown one, no weight twice, and a row also stops before a swap that would turn e's sign (`sign_rule`).

Different from the released code, and why:

- A row stops when it has no candidate of the right sign left. Theirs reads on into the other weights, which breaks the
  counts of narrow layers, or off the end; `as_released` follows it to the letter and names a layer that runs out.
- An input that is 0 throughout is no candidate, where theirs divides 0 by its variance of 0.
- Nothing is sorted but the few candidates at either end that the cycles can reach. Equal values go by their columns, as
  in the stable sorts there, so the masks are the same; in N:M theirs take whichever of equal scores `topk` gives, which
  shows in the magnitudes of 16-bit weights (0.2 % of a mask).

What follows the release where it says more than the paper: feed-forward layers keep the criterion's mask (`parts`), and
no sign rule outside N:M. The threshold is in units of an output summed over a sequence (2048 tokens in the release).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from harness.pruning.refiners import _dsnot_released
from harness.pruning.refiners._candidates import Ends, Groups, ends, ordered
from harness.ranges import NonNegative, Whole

GROUP = "row"
PATTERNS = ("unstructured", "nm", "mixed_nm")

_CHUNK = 1 << 17
"""Weights whose candidates are ordered at once: few enough to stay in a cache."""


def refine(
    weight: Tensor,
    keep: Tensor,
    scores: Tensor,
    norm: Tensor,
    total: Tensor,
    variance: Tensor,
    part: str,
    period: int | None,
    *,
    cycles: Whole = 50,
    threshold: NonNegative = 0.1,
    power: NonNegative = 1.0,
    sign_rule: bool = False,
    parts: Literal["attention", "feed_forward", "all"] = "attention",
    as_released: bool = False,
) -> Tensor:
    """DSnoT: training-free swaps of pruned for kept weights by expected error and variance of the inputs.

    Args:
        weight: The dense weight [out, in].
        keep: Bool [out, in], True stays; what the criterion chose.
        scores: The criterion's scores [out, in].
        norm: Root mean square of each input over the tokens, [in].
        total: Each input summed over a sequence, averaged over sequences, [in].
        variance: Each input's variance within a sequence, averaged over tokens, [in].
        part: The half of the block that the layer belongs to.
        period: Size of the pattern's groups along the inputs (N:M), None without.
        cycles: Most swaps of a row.
        threshold: The expected error at which a row is done.
        power: Exponent of the variance that a grown weight's contribution is divided by; 0 ignores the variance.
        sign_rule: Whether a row without groups, too, stops before a swap that would turn its error's sign.
        parts: Which half of a block is edited.
        as_released: Let candidates run out as in the released code.

    Returns:
        Bool [out, in], as many True in every row (and in every group of N:M) as before.

    Raises:
        Problem: Only with `as_released`: the rows differ in their counts, or one reads beyond its last candidate.
    """
    if parts not in ("all", part):
        return keep.clone()

    def terms(keep: Tensor, weight: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        """c, c of the pruned, that over the variance, and the loss by which the kept are ordered; [rows, in] each."""
        contribution = weight.float() * total
        pruned = contribution.masked_fill(keep, 0)
        cost = scores.float() if period else weight.float().abs() * norm
        return contribution, pruned, pruned / variance.pow(power) if power else pruned, cost

    refined, sign_rule = keep.clone(), sign_rule or period is not None
    if as_released:
        _dsnot_released.edit(refined, *terms(keep, weight, scores), period, cycles, threshold, sign_rule)
        return refined
    rows, depth = max(_CHUNK // keep.shape[1], 1), min(cycles, keep.shape[1])
    chunks = zip(keep.split(rows), weight.split(rows), scores.split(rows), strict=True)
    found = [_candidates(chunk[0], *terms(*chunk), depth, period) for chunk in chunks]
    error, columns, number, *others = (torch.cat(parts) for parts in zip(*found, strict=True))
    grow = Ends(columns, number, weight, total)
    prune = Groups(others[0], weight, total, period) if period else Ends(*others, weight, total)
    start, active = error.sign(), torch.ones_like(error, dtype=torch.bool)
    for _ in range(cycles):
        high = (error > 0).long()
        g, grown, is_g = grow.next(high)
        q, gone, is_q = prune.next(1 - high, g)
        after = error + gone - grown
        active &= is_g & is_q & (error.abs() > threshold)
        if sign_rule:
            active &= after.sign() == start
        if not active.any():
            break
        error = torch.where(active, after, error)
        grow.use(high, g, active)
        prune.use(1 - high, q, active)
    refined[prune.used()] = False
    refined[grow.used()] = True
    return refined


def _candidates(
    keep: Tensor, contribution: Tensor, pruned: Tensor, gain: Tensor, cost: Tensor, depth: int, period: int | None
) -> tuple[Tensor, ...]:
    """Error [rows, 1]; ends of the weights to grow; ends of those to prune, or with groups the cost of the kept."""
    gain = torch.where(pruned == 0, 0, gain)
    found = (pruned.sum(dim=1, keepdim=True), *ends(ordered(gain), gain, depth))
    if period:
        return *found, cost.masked_fill(~keep, torch.inf)
    kept, order, last = contribution - pruned, ordered(cost), torch.iinfo(torch.int64).max
    order = torch.where(kept < 0, order - last, torch.where(kept > 0, last - order, 0))
    return *found, *ends(order, kept, depth)
