"""ALPS: support and weights together by ADMM with a growing penalty, then conjugate gradients on the support.

Meng et al., arXiv:2406.07831 (NeurIPS 2024). A layer is min ||X (W - D)^T||^2 with D of the pattern. On inputs scaled
to unit norm, with G their damped Gram matrix and right = W G, an iteration is

    B = (right - V + rho D) (G + rho)^-1        D = the pattern's projection of B + V / rho        V = V + rho (B - D)

One eigendecomposition of G serves every rho. Each third iteration rho follows the support: it grows by 1.3, 1.2 or 1.1
where more than 10 %, more than 0.5 % or less of it changed; a first rho at which too little changes was too large, and
is divided by 5. The support is settled when nothing changes any more, or, after 30 iterations, less than 0.03 %.

Different from the released code: the projection is any pattern's `choose` (theirs: the matrix, or N:M), so the count is
the pattern's floor where theirs rounds; a step of the conjugate gradients takes one product with G instead of three;
a layer that is not to be pruned at all is given back as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from harness.pruning.solvers import Solved
from harness.pruning.solvers.least_squares import refit, unit_diagonal
from harness.ranges import Count, NonNegative, Positive, Whole

GROUP = "matrix"

_EVERY, _SETTLED_AFTER, _LOWEST, _HIGHEST = 3, 30, 1e-12, 1e6


def solve(
    weight: Tensor,
    gram: Tensor,
    choose: Callable[[Tensor, float], Tensor],
    sparsity: float,
    *,
    rho: Positive = 0.1,
    iterations: Count = 300,
    steps: Whole = 10,
    damping: NonNegative = 0.01,
) -> Solved:
    """ALPS: ADMM finds the support, conjugate gradients the weights on it.

    Args:
        weight: [out, in], any floating dtype; worked on in float32.
        gram: X^T X over the calibration tokens at any scale, [in, in].
        choose: The pattern, (scores [out, in], sparsity) -> keep.
        sparsity: Fraction of zeros.
        rho: The first penalty on the distance between B and D.
        iterations: Most iterations of ADMM.
        steps: Steps of the conjugate gradients.
        damping: Added to the diagonal of `gram`, as a fraction of its mean.
    """
    gram, norm = unit_diagonal(gram, damping)
    dense = weight.float() * norm
    keep = choose(dense.abs(), sparsity)
    if keep.all():
        return Solved(weight.clone(), keep, weight.shape[1])
    right = dense @ gram
    near, rho, used = _admm(gram, right, dense, keep, lambda x: choose(x.abs(), sparsity), rho, iterations)
    keep = choose(near.abs(), sparsity)
    solved, _ = refit(gram, right, near * keep, keep, steps)
    facts = {"rho": rho, "iterations": used, "damping": damping}
    return Solved((solved / norm).to(weight.dtype), keep, weight.shape[1], facts)


def _admm(
    gram: Tensor,
    right: Tensor,
    dense: Tensor,
    keep: Tensor,
    support: Callable[[Tensor], Tensor],
    rho: float,
    iterations: int,
) -> tuple[Tensor, float, int]:
    """Returns the last B, the last rho and the iterations made, from D = `dense` on the support `keep`."""
    values, vectors = torch.linalg.eigh(gram.double())
    first, kept = dense * keep, int(keep.sum())
    sparse, dual, growing = first, torch.zeros_like(dense), False
    inverse = _inverse(values, vectors, rho)
    for iteration in range(1, iterations + 1):
        near = (right - dual + rho * sparse) @ inverse
        wanted = (dual + rho * near) / rho
        now = support(wanted)
        sparse = wanted * now
        dual = dual + rho * (near - sparse)
        if iteration % _EVERY:
            continue
        changed = int((now != keep).sum())
        keep = now
        if changed > 0.005 * kept:
            rho, growing = rho * (1.3 if changed > 0.1 * kept else 1.2), True
        elif growing and changed:
            rho *= 1.1
        elif growing:
            break
        else:
            rho /= 5
            if changed:
                near, sparse, dual = dense, first, torch.zeros_like(dense)
        if iteration > _SETTLED_AFTER and changed < 0.0003 * kept:
            break
        rho = min(max(rho, _LOWEST), _HIGHEST)
        inverse = _inverse(values, vectors, rho)
    return near, rho, iteration


def _inverse(values: Tensor, vectors: Tensor, rho: float) -> Tensor:
    """(G + rho)^-1 from the eigenvalues and eigenvectors of G, float32."""
    return ((vectors / (values.clamp(min=0) + rho)) @ vectors.T).float()
