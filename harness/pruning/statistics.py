"""Input statistics of a linear layer, gathered a batch at a time: add(x), merge(other), value.

A statistic sees only the tokens that count, [tokens, columns], and gives a mean over them, so that neither the batch
size nor the padding changes it. Sums are float32 whatever the model's dtype. `STATISTICS` maps the name by which a
criterion or solver asks for a statistic (the name of its positional argument) to the class.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Statistic(Protocol):
    """What the walk asks of a statistic."""

    tokens: int
    value: Tensor

    def __init__(self, columns: int, device: torch.device) -> None: ...

    def add(self, x: Tensor) -> None:
        """Counts the tokens x [tokens, columns] in."""

    def merge(self, other: Statistic) -> None:
        """Counts in what another statistic of the same kind has seen."""


class InputNorm:
    """Root mean square of each input: norm_j = sqrt(sum over tokens of x_j^2 / tokens), [columns]; Wanda's norm."""

    def __init__(self, columns: int, device: torch.device) -> None:
        self.tokens = 0
        self.squares = torch.zeros(columns, dtype=torch.float32, device=device)

    def add(self, x: Tensor) -> None:
        """Counts the tokens x [tokens, columns] in."""
        self.tokens += x.shape[0]
        self.squares += x.float().square().sum(dim=0)

    def merge(self, other: InputNorm) -> None:
        """Counts in what another norm has seen."""
        self.tokens += other.tokens
        self.squares += other.squares

    @property
    def value(self) -> Tensor:
        """The norm, [columns], float32; zero before the first token."""
        return (self.squares / max(self.tokens, 1)).sqrt()


class Gram:
    """Second moments of the inputs: G = X^T X / tokens, [columns, columns]; the layer's Hessian up to a factor 2.

    Kept as a running mean, so that the value is no second matrix of that size.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self.tokens = 0
        self.value = torch.zeros(columns, columns, dtype=torch.float32, device=device)

    def add(self, x: Tensor) -> None:
        """Counts the tokens x [tokens, columns] in."""
        if not x.shape[0]:
            return
        before, self.tokens = self.tokens, self.tokens + x.shape[0]
        x = x.float()
        self.value.addmm_(x.T, x, beta=before / self.tokens, alpha=1 / self.tokens)

    def merge(self, other: Gram) -> None:
        """Counts in what another Gram matrix has seen."""
        if not other.tokens:
            return
        self.tokens += other.tokens
        self.value.lerp_(other.value, other.tokens / self.tokens)


STATISTICS: dict[str, type[Statistic]] = {"norm": InputNorm, "gram": Gram}
