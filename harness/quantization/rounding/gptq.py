"""GPTQ on sparse weights: rounds column after column and lets the kept weights to the right make up for each error.

Frantar et al., arXiv:2210.17323, algorithm 1. With H = X^T X (damped) and U the upper factor of its inverse,
H^-1 = U^T U, column i's error e_i = (w_i - q_i) / U_ii is spread by W_k -= e_i U_ik for every k > i.

A pruned weight takes 0 when its turn comes, and what the columns before it had spread into it is then its own error and
goes on to the right, as in SparseGPT's joint sweep (arXiv:2301.00774, section 3.5): the weights that are left are at
every step the best ones given all that is fixed, pruned ones included. On the dense weights with SparseGPT's own mask
and grid this gives SparseGPT's `bits` exactly.

Different from the released code: the grids are spread over the weights before the sweep also in groups (their
`static_groups`), because the codes must fit scales that are known; a dead input's weights are rounded, not set to zero;
the factor is that of our SparseGPT, which raises the damping where it must; damping is relative to live inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.pruning.solvers._inverse import inverse_factor
from harness.quantization.grid import Grid, nearest
from harness.quantization.rounding import Rounded
from harness.ranges import Count, NonNegative


def round(
    weight: Tensor,
    keep: Tensor,
    grid: Grid,
    gram: Tensor,
    *,
    block: Count = 128,
    damping: NonNegative = 0.01,
    order: bool = False,
) -> Rounded:
    """GPTQ: column-wise rounding with compensation through the inverse Hessian.

    Args:
        weight: [out, in], any floating dtype, 0 where it is pruned; worked on in float32.
        keep: Bool [out, in], True stays.
        grid: The values that a weight may take.
        gram: X^T X over the calibration tokens at any scale, [in, in].
        block: Columns whose errors reach those to the right of them together.
        damping: Added to the diagonal of `gram`, as a fraction of its mean.
        order: Whether the inputs go by falling second moment (the released `act-order`), not from left to right.

    Raises:
        Problem: `gram` cannot be factorised even with a thousand times the damping.
    """
    rows, columns = weight.shape
    turns = torch.arange(columns, device=weight.device)
    if order:
        turns = gram.diagonal().argsort(descending=True, stable=True)
        gram = gram[turns][:, turns]
    factor, dead, damping = inverse_factor(gram, damping)
    work, kept = weight.T[turns].to(torch.float32, copy=True).contiguous(), keep.T[turns]
    scale, zero = (each.T.contiguous() for each in grid.at(turns))
    codes = torch.empty_like(work)
    errors = torch.empty(min(block, columns), rows, device=weight.device)
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        for i in range(start, stop):
            if i > start:
                work[i].addmv_(errors[: i - start].T, factor[start:i, i], alpha=-1)
            code = nearest(work[i], scale[i], zero[i], grid.lowest, grid.highest)
            codes[i] = torch.where(kept[i], code, zero[i])
            torch.div(work[i] - scale[i] * (codes[i] - zero[i]), factor[i, i], out=errors[i - start])
        work[stop:].addmm_(factor[start:stop, stop:].T, errors[: stop - start], alpha=-1)
    facts = {"damping": damping} | ({"dead_inputs": int(dead.sum())} if dead.any() else {})
    return Rounded(codes[turns.argsort()].T.contiguous().to(torch.int8), facts)
