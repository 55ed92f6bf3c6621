"""New method: the weights of the lowest |w| sqrt(gram_jj) go, the others stay as they are, to begin with.

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from harness.pruning.solvers import Solved

GROUP = "row"


def solve(weight: Tensor, gram: Tensor, choose: Callable[[Tensor, float], Tensor], sparsity: float) -> Solved:
    """New method: prunes by weight times input norm and changes no other weight, to begin with.

    Args:
        weight: [out, in], any floating dtype.
        gram: X^T X over the calibration tokens at any scale, [in, in].
        choose: The pattern, (scores [out, columns], sparsity) -> keep.
        sparsity: Fraction of zeros.
    """
    keep = choose(weight.float().abs() * gram.diagonal().sqrt(), sparsity)
    return Solved(weight.masked_fill(~keep, 0), keep, slab=weight.shape[1])
