"""The upper factor of a damped Gram matrix's inverse: (G + damping * mean diagonal)^-1 = U^T U, as SparseGPT asks."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from harness.problems import Problem

_PANEL = 128
"""Columns of a triangular matrix that are inverted at once."""

Factor = tuple[Tensor, Tensor, float]
_last: tuple[weakref.ref[Tensor], tuple, Factor] | None = None
"""The last Gram matrix that was factorised, how, and its factor, which goes with it."""


def inverse_factor(gram: Tensor, damping: float, released: float | None = None) -> Factor:
    """Factorises a Gram matrix, once for the layers that read one input and so share it (q, k, v; gate, up).

    As `factorise`, whose result must not be changed.
    """
    global _last
    how = (gram._version, damping, released)
    if _last is None or _last[0]() is not gram or _last[1] != how:
        _last = None  # so that no two factors are held
        _last = weakref.ref(gram, _forget), how, factorise(gram, damping, released)
    return _last[2]


def _forget(gone: weakref.ref[Tensor]) -> None:
    global _last
    if _last and _last[0] is gone:
        _last = None


def factorise(gram: Tensor, damping: float, released: float | None = None) -> Factor:
    """Returns the upper U with (gram + damping * mean diagonal)^-1 = U^T U, the dead inputs, and the damping used.

    An input that was never active has a zero row in `gram`; its diagonal becomes the mean, so that it stands alone.

    Args:
        gram: Symmetric, [n, n].
        damping: Fraction of the mean diagonal of the live inputs.
        released: SparseGPT's release factorises a Hessian of so many times `gram`: do as it does, which gives a dead
            input a diagonal of 1 in that Hessian, counts it in the mean, and forms the inverse on the way.

    Raises:
        Problem: The matrix is not positive definite even with a thousand times the damping.
    """
    diagonal = gram.diagonal().float()
    dead = diagonal == 0
    mean = alone = diagonal[~dead].mean() if not dead.all() else diagonal.new_ones(())
    if released:
        alone = diagonal.new_tensor(1 / released)
        mean = (diagonal + dead * alone).mean()
    for _ in range(4):
        upper = (_twice if released else _reversed)(gram, dead * alone + damping * mean)
        if upper is not None:
            return upper, dead, damping
        tried, damping = damping, max(damping * 10, 1e-4)
    raise Problem(
        f"the Gram matrix of its inputs cannot be factorised, even with a damping of {tried:g}",
        hint="calibrate on more samples, or ask for more damping",
    )


def _reversed(gram: Tensor, added: Tensor) -> Tensor | None:
    """Factorises G = V V^T with V upper, by reversing the order of the inputs, and inverts V; None if it fails."""
    damped = gram.float().flip(0, 1)
    damped.diagonal().add_(added.flip(0))
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed:
        return None
    del damped
    upper = lower.flip(0, 1)
    del lower
    return _inverted(upper)


def _inverted(upper: Tensor) -> Tensor:
    """Inverts an upper triangular matrix by panels of columns: a third of the products of a solve for the identity."""
    inverse = torch.zeros_like(upper)
    for start in range(0, len(upper), _PANEL):
        left, here = slice(start), slice(start, start + _PANEL)
        corner = upper[here, here]
        identity = torch.eye(len(corner), dtype=upper.dtype, device=upper.device)
        inverse[here, here] = torch.linalg.solve_triangular(corner, identity, upper=True)
        torch.mm(inverse[left, left], -upper[left, here] @ inverse[here, here], out=inverse[left, here])
    return inverse


def _twice(gram: Tensor, added: Tensor) -> Tensor | None:
    """Factorises G, forms its inverse and factorises that, as released; None if either factorisation fails."""
    lower, failed = torch.linalg.cholesky_ex(gram.float() + added.diag())
    if failed:
        return None
    upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    return None if failed else upper
