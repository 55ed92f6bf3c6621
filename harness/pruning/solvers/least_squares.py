"""Least squares on a mask: the weights that stay are solved for anew, each row min ||X (w - w')^T||^2 on its support.

The reference point of the other solvers: what is left of the error when the mask is chosen beforehand, by Wanda's score
|w_j| * sqrt(G_jj) (arXiv:2306.11695), and the weights are then as good as they can be. Solving each row's own normal
equations is what SparseGPT (arXiv:2301.00774, section 3.1) avoids for its cost; here conjugate gradients, on inputs
scaled to unit norm as ALPS (arXiv:2406.07831) ends with them, solve all rows together for a matrix product a step. The
damping draws the solution to the dense weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.pruning.solvers import Solved
from harness.ranges import Count, NonNegative

GROUP = "row"


def solve(
    weight: Tensor,
    gram: Tensor,
    choose: Callable[[Tensor, float], Tensor],
    sparsity: float,
    *,
    steps: Count = 100,
    tolerance: NonNegative = 1e-5,
    damping: NonNegative = 0.01,
) -> Solved:
    """Least squares: Wanda's mask, then the best weights on it by conjugate gradients.

    Args:
        weight: [out, in], any floating dtype; worked on in float32.
        gram: X^T X over the calibration tokens at any scale, [in, in].
        choose: The pattern, (scores [out, in], sparsity) -> keep.
        sparsity: Fraction of zeros.
        steps: Most steps of the conjugate gradients.
        tolerance: Residual of every row at which they end, relative to its right-hand side.
        damping: Added to the diagonal of `gram`, as a fraction of its mean.
    """
    keep = choose(weight.float().abs() * gram.diagonal().float().sqrt(), sparsity)
    gram, norm = unit_diagonal(gram, damping)
    dense = weight.float() * norm
    solved, used = refit(gram, dense @ gram, dense * keep, keep, steps, tolerance)
    return Solved((solved / norm).to(weight.dtype), keep, weight.shape[1], {"steps": used, "damping": damping})


def unit_diagonal(gram: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Returns the damped Gram matrix of the inputs scaled to unit norm, float32, and their norms, [in].

    Without damping the norm of an input that was never active is not 0, but next to nothing.
    """
    gram = gram.float().clone()
    gram.diagonal().add_(damping * gram.diagonal().mean())
    norm = gram.diagonal().sqrt()
    norm.masked_fill_(norm == 0, 1e-8 * float(norm.max()) or 1)
    return gram.div_(norm).div_(norm[:, None]), norm


def refit(
    gram: Tensor, right: Tensor, start: Tensor, keep: Tensor, steps: int, tolerance: float = 0.0
) -> tuple[Tensor, int]:
    """Solves x G = right on each row's support by conjugate gradients, all rows together.

    Args:
        gram: G, symmetric, [in, in]; its diagonal of ones is the preconditioning.
        right: [out, in].
        start: The first x, 0 where `keep` is False, [out, in].
        keep: The supports, [out, in].
        steps: Most steps.
        tolerance: Residual of every row at which to end, relative to `right`.

    Returns:
        x [out, in], 0 where `keep` is False, and the steps taken.
    """
    tiny = torch.finfo(right.dtype).tiny
    x, residual = start.clone(), (right - start @ gram) * keep
    direction, squared = residual, residual.square().sum(dim=1, keepdim=True)
    enough = (tolerance * right * keep).square().sum(dim=1, keepdim=True)
    for step in range(steps):
        if (squared <= enough).all():
            return x, step
        image = direction @ gram
        length = squared / (direction * image).sum(dim=1, keepdim=True).clamp(min=tiny)
        x.addcmul_(direction, length)
        residual = torch.where(keep, residual - length * image, 0)
        before, squared = squared, residual.square().sum(dim=1, keepdim=True)
        direction = residual + squared / before.clamp(min=tiny) * direction
    return x, steps
