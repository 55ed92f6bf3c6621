"""DSnoT's cycles to the letter of the authors' release, for comparison: pointers that no set of candidates stops.

Every row has a list of all its weights to grow, by C / variance^power with 0 for the kept ones, and without groups a
list of its kept weights to prune, those with C < 0 by rising Wanda score before those with C > 0 by falling score;
weights of C = 0 between them all stand for the list's first. A pointer walks inwards from either end of a list, also
when it has left the weights that it was meant for, and also in a row that is done, which then takes back what the
pointers meet. As long as there are candidates this is `dsnot`; at 50 cycles, from a width of about 200 on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.problems import Problem


def edit(
    keep: Tensor,
    contribution: Tensor,
    pruned: Tensor,
    gain: Tensor,
    cost: Tensor,
    period: int | None,
    cycles: int,
    threshold: float,
    sign_rule: bool,
) -> None:
    """Swaps in place; all tensors are [rows, columns].

    Raises:
        Problem: The rows differ in how many weights they keep, or a pointer leaves its list.
    """
    number = int(keep[0].sum())
    if not (keep.sum(dim=1) == number).all():
        raise Problem("its rows keep different numbers of weights, which the released DSnoT cannot edit")
    error = pruned.sum(dim=1, keepdim=True)
    start, active = error.sign(), torch.ones_like(error, dtype=torch.bool)
    grow = _Ends(gain.sort(dim=1, stable=True).indices)
    if period:
        cost = cost.masked_fill(~keep, torch.inf)
        worst = cost.amax(dim=1, keepdim=True) + 1
    else:
        order = cost.masked_fill(~keep, torch.inf).sort(dim=1, stable=True).indices[:, :number]
        prune = _Ends(order.gather(1, _negative_outwards(contribution.gather(1, order))))
    for cycle in range(cycles):
        if not active.any():
            break
        g = grow.take(error > 0, cycle)
        if period:
            members = g - g % period + torch.arange(period, device=g.device)
            q = members.gather(1, cost.gather(1, members).topk(1, dim=1, largest=False).indices)
            cost.scatter_(1, q, worst)
        else:
            q = prune.take(error < 0, cycle)
        grown, gone = contribution.gather(1, g), contribution.gather(1, q)
        active &= error.abs() > threshold
        if sign_rule:
            active &= start == (error + gone - grown).sign()
        keep.scatter_(1, q, ~active)
        keep.scatter_(1, g, active)
        error += torch.where(active, gone, 0)
        error -= torch.where(active, grown, 0)


class _Ends:
    """A list for each row, [rows, n], taken from either end."""

    def __init__(self, lists: Tensor) -> None:
        self.lists = lists
        self.at = torch.tensor([0, lists.shape[1] - 1], device=lists.device).repeat(len(lists), 1)

    def take(self, high: Tensor, cycle: int) -> Tensor:
        """Returns the next of each row, [rows, 1], from the high end where `high`, and moves that pointer on."""
        end = high.long()
        at = self.at.gather(1, end)
        if ((at < 0) | (at >= self.lists.shape[1])).any():
            raise Problem(
                f"a row runs out of weights to swap in cycle {cycle + 1} of the released DSnoT",
                hint="ask for fewer cycles, or leave as_released out: a row then stops by itself",
            )
        self.at.scatter_(1, end, at + 1 - 2 * end)
        return self.lists.gather(1, at)


def _negative_outwards(values: Tensor) -> Tensor:
    """Positions of the negatives in order, of the first column for every zero, of the positives in reverse order."""
    position = torch.arange(values.shape[1], device=values.device).expand_as(values)
    rank = torch.where(values < 0, position, torch.where(values > 0, 3 * len(position[0]) - position, len(position[0])))
    order = rank.sort(dim=1, stable=True).indices
    return order.masked_fill(values.gather(1, order) == 0, 0)
