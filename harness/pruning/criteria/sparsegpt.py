"""SparseGPT's scores without its weight update: score_ij = w_ij^2 / U_jj^2, U the upper factor of the inverse Hessian.

Frantar & Alistarh, arXiv:2301.00774, section 3.2, on weights that nothing compensates for, all columns at once. DSnoT
(arXiv:2310.08915) starts from this mask, chosen within each output row, under the name sparsegpt; the method itself is
the solver. DSnoT's released code never adds to the Hessian, so that every score is 0 and the first columns of each row
go; here it is the inputs'. A dead input has no part in the mean diagonal, where theirs counts as 1.
"""

from __future__ import annotations

from torch import Tensor

from harness.problems import Problem
from harness.pruning.solvers._inverse import inverse_factor
from harness.ranges import NonNegative

GROUP = "row"


def score(weight: Tensor, gram: Tensor, *, damping: NonNegative = 0.01) -> Tensor:
    """SparseGPT's scores alone: squared weight over the inverse Hessian's squared factor diagonal.

    Args:
        weight: [out, in].
        gram: X^T X over the calibration tokens at any scale, [in, in].
        damping: Added to the diagonal of `gram`, as a fraction of its mean.

    Returns:
        Scores [out, in], float32; those of inputs that were never active are 0.

    Raises:
        Problem: `gram` cannot be factorised with this damping.
    """
    factor, dead, used = inverse_factor(gram, damping)
    if used != damping:
        raise Problem(
            f"the Gram matrix of its inputs cannot be factorised with a damping of {damping:g}",
            hint=f"it can with {used:g}, or calibrate on more samples",
        )
    return (weight.float() / factor.diagonal()).square().masked_fill(dead, 0)
