"""Input statistics of a linear layer, gathered a batch at a time: add(x, lengths), merge(other), value.

A statistic sees only the tokens that count, [tokens, columns], with the number of them in each sequence, so that
neither the batch size nor the padding changes it; a sequence comes whole in one batch. Sums are float32 whatever the
model's dtype. `STATISTICS` maps the name by which a criterion, solver or refiner asks for a statistic (the name of its
positional argument) to the class.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_PANEL = 192
"""Rows of a symmetric matrix that are computed at once."""


class Statistic(Protocol):
    """What the walk asks of a statistic."""

    tokens: int
    value: Tensor

    def __init__(self, columns: int, device: torch.device) -> None: ...

    def add(self, x: Tensor, lengths: Tensor) -> None:
        """Counts the tokens x [tokens, columns] in, sequence after sequence of `lengths` [sequences]."""

    def merge(self, other: Statistic) -> None:
        """Counts in what another statistic of the same kind has seen."""


class InputNorm:
    """Root mean square of each input: norm_j = sqrt(sum over tokens of x_j^2 / tokens), [columns]; Wanda's norm."""

    def __init__(self, columns: int, device: torch.device) -> None:
        self.tokens = 0
        self.squares = torch.zeros(columns, dtype=torch.float32, device=device)

    def add(self, x: Tensor, lengths: Tensor) -> None:
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

    Kept as a running mean, so that the value is no second matrix of that size, and by panels of rows from the diagonal
    on, which is little more than half of the products; the rest is their mirror image.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self.tokens = 0
        self._upper = torch.zeros(columns, columns, dtype=torch.float32, device=device)

    def add(self, x: Tensor, lengths: Tensor) -> None:
        """Counts the tokens x [tokens, columns] in."""
        if not x.shape[0]:
            return
        before, self.tokens = self.tokens, self.tokens + x.shape[0]
        x = x.float()
        for rows in _panels(len(self._upper)):
            here = slice(rows.start, None)
            self._upper[rows, here].addmm_(x[:, rows].T, x[:, here], beta=before / self.tokens, alpha=1 / self.tokens)

    def merge(self, other: Gram) -> None:
        """Counts in what another Gram matrix has seen."""
        if not other.tokens:
            return
        self.tokens += other.tokens
        self._upper.lerp_(other._upper, other.tokens / self.tokens)

    @property
    def value(self) -> Tensor:
        """The moments, [columns, columns], float32; zero before the first token."""
        for rows in _panels(len(self._upper)):
            beyond = slice(rows.stop, None)
            self._upper[beyond, rows] = self._upper[rows, beyond].T
        return self._upper


def _panels(columns: int) -> list[slice]:
    """Returns the rows of a symmetric matrix in panels of up to `_PANEL`."""
    return [slice(start, min(start + _PANEL, columns)) for start in range(0, columns, _PANEL)]


class Total:
    """Mean over sequences of each input's sum over the tokens of a sequence, [columns]; DSnoT's expected input.

    A sequence without a token that counts is none.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self.tokens = 0
        self.sequences = torch.zeros((), dtype=torch.int64, device=device)
        self.sums = torch.zeros(columns, dtype=torch.float32, device=device)

    def add(self, x: Tensor, lengths: Tensor) -> None:
        """Counts the tokens x [tokens, columns] in, sequence after sequence of `lengths` [sequences]."""
        self.tokens += x.shape[0]
        self.sequences += lengths.count_nonzero().to(self.sequences.device)
        self.sums += x.sum(dim=0, dtype=torch.float32)

    def merge(self, other: Total) -> None:
        """Counts in what another total has seen."""
        self.tokens += other.tokens
        self.sequences += other.sequences
        self.sums += other.sums

    @property
    def value(self) -> Tensor:
        """The total, [columns], float32; zero before the first token."""
        return self.sums / self.sequences.clamp(min=1)


class Length:
    """Mean number of tokens of a sequence, a scalar: a sum over a sequence is so many times a mean over its tokens.

    A sequence without a token that counts is none.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self.tokens = 0
        self.sequences = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, x: Tensor, lengths: Tensor) -> None:
        """Counts the tokens x [tokens, columns] in, sequence after sequence of `lengths` [sequences]."""
        self.tokens += x.shape[0]
        self.sequences += lengths.count_nonzero().to(self.sequences.device)

    def merge(self, other: Length) -> None:
        """Counts in what another length has seen."""
        self.tokens += other.tokens
        self.sequences += other.sequences

    @property
    def value(self) -> Tensor:
        """The length, a scalar, float32; zero before the first token."""
        return self.tokens / self.sequences.clamp(min=1)


class Variance:
    """Mean over tokens of each input's squared distance from the mean of its own sequence, [columns]; DSnoT's variance.

    What moves a sequence as a whole does not count. Every sequence is centred before anything is squared, so that no
    large mean eats a small variance's digits.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self.tokens = 0
        self.squares = torch.zeros(columns, dtype=torch.float32, device=device)

    def add(self, x: Tensor, lengths: Tensor) -> None:
        """Counts the tokens x [tokens, columns] in, sequence after sequence of `lengths` [sequences]."""
        self.tokens += x.shape[0]
        for sequence in x.float().split(lengths[lengths > 0].tolist()):
            self.squares += (sequence - sequence.mean(dim=0)).square_().sum(dim=0)

    def merge(self, other: Variance) -> None:
        """Counts in what another variance has seen."""
        self.tokens += other.tokens
        self.squares += other.squares

    @property
    def value(self) -> Tensor:
        """The variance, [columns], float32; zero before the first token."""
        return self.squares / max(self.tokens, 1)


def finite(values: Tensor) -> bool:
    """Says whether all values are finite; as their sum then mostly is, they are seldom looked at one by one."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


STATISTICS: dict[str, type[Statistic]] = {
    "norm": InputNorm,
    "gram": Gram,
    "total": Total,
    "length": Length,
    "variance": Variance,
}
