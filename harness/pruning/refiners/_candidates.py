"""What DSnoT may swap next in each row: from either end of an order, or within a group of N:M.

A row's candidates are taken by `next`, all rows together, and counted by `use` in the rows that are still active.
"""

from __future__ import annotations

import torch
from torch import Tensor


def ordered(values: Tensor) -> Tensor:
    """Returns int64 [rows, columns] in the order of float32 values, equal ones in the order of their columns."""
    bits = (values + 0.0).view(torch.int32).long()  # + 0.0: the two zeros are equal
    return ((bits ^ (bits >> 63 & 0x7FFFFFFF)) << 32) | torch.arange(values.shape[1], device=values.device)


def ends(order: Tensor, values: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Returns the columns of either end of each row's order, and how many values are negative and positive.

    Args:
        order: Int64 [rows, columns]; what is negative in `values` comes first, what is positive last.
        values: [rows, columns].
        depth: How many columns from either end.

    Returns:
        Columns [rows, 2, depth], from each end inwards, and numbers [rows, 2].
    """
    columns = [order.topk(depth, dim=1, largest=largest).indices for largest in (False, True)]
    return torch.stack(columns, dim=1), torch.stack([(values < 0).sum(dim=1), (values > 0).sum(dim=1)], dim=1)


class Ends:
    """Each row's candidates from its low (0) and its high end (1), best first, and how many of them are used."""

    def __init__(self, columns: Tensor, number: Tensor, weight: Tensor, total: Tensor) -> None:
        self.depth, self.columns, self.number = columns.shape[2], columns.flatten(1), number
        self.contribution = weight.gather(1, self.columns).float() * total[self.columns]
        self.count = torch.zeros_like(number)

    def next(self, end: Tensor, grown: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns column, contribution, and whether there is one, [rows, 1] each, at this end of each row."""
        count = self.count.gather(1, end)
        at = count + self.depth * end
        return self.columns.gather(1, at), self.contribution.gather(1, at), count < self.number.gather(1, end)

    def use(self, end: Tensor, column: Tensor, active: Tensor) -> None:
        """Moves on in the active rows."""
        self.count.scatter_add_(1, end, active.long())

    def used(self) -> tuple[Tensor, Tensor]:
        """Returns the rows and columns of those that were used."""
        used = torch.arange(self.depth, device=self.count.device) < self.count[..., None]
        row, at = used.flatten(1).nonzero(as_tuple=True)
        return row, self.columns[row, at]


class Groups:
    """The kept weights of N:M, of which the one to prune has the lowest cost in the grown one's group."""

    def __init__(self, cost: Tensor, weight: Tensor, total: Tensor, period: int) -> None:
        self.cost, self.weight, self.total = cost, weight, total
        self.group, self.before = torch.arange(period, device=cost.device), cost < torch.inf

    def next(self, end: Tensor, grown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns column, contribution, and whether there is one, [rows, 1] each, in the group of `grown`."""
        members = grown - grown % len(self.group) + self.group
        column = members.gather(1, self.cost.gather(1, members).argmin(dim=1, keepdim=True))
        contribution = self.weight.gather(1, column).float() * self.total[column]
        return column, contribution, self.cost.gather(1, column) < torch.inf

    def use(self, end: Tensor, column: Tensor, active: Tensor) -> None:
        """Leaves the column out from now on in the active rows."""
        self.cost.scatter_(1, column, self.cost.gather(1, column).masked_fill(active, torch.inf))

    def used(self) -> Tensor:
        """Returns where those stand that were used, [rows, in]."""
        return self.before & (self.cost == torch.inf)
