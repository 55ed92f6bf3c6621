"""SparseGPT: prunes columns from left to right and lets the columns to the right make up for each.

Frantar & Alistarh, arXiv:2301.00774, algorithm 1. With H = X^T X (damped) and U the upper factor of its inverse,
H^-1 = U^T U, column i's error e_i = (w_i - pruned w_i) / U_ii is spread by W_k -= e_i U_ik for every k > i. Weights are
chosen by w^2 / U_ii^2 within a slab of 128 columns, all rows together, on weights that already compensate for earlier
slabs; N:M chooses each group when the columns before it are done.

Different from the released code, and why:

- The count in a slab is floor(n * sparsity); theirs prunes `score <= threshold`, one weight more, and every tie.
- U comes from one Cholesky factorisation of H with its order reversed, H = V V^T with V upper and U = V^-1: the same
  factor as inverting H and factorising again, as exact, for half the work. It is rounded otherwise, which tips near
  ties: up to 7 of 10,000 entries of a mask differed on layers of SmolLM2-135M.
- A column's compensation is gathered from all errors before it when its turn comes, in tiles by matrix product, instead
  of updating all columns to the right after every column. The sums are the same, memory is read far less often.
- The damping is relative to the mean diagonal of the live inputs. Theirs takes a dead input's diagonal as 1, whatever
  the scale of the others, into that mean.
- The weights of a dead input, which never made a difference in the calibration, are the first to go; theirs sets all of
  them to zero, also beyond the sparsity asked for.
- A factorisation that fails is tried again with ten times the damping, up to three times; the damping used is reported.

`as_released` takes their damping, their dead inputs and their three factorisations, and whoever joins it with a pattern
(`pruning.recipe`) takes the pattern's count of theirs too; then the masks are theirs. Their Hessian is twice the sum
over a sequence's tokens, averaged over sequences, so that a diagonal of 1 weighs by the `length` of a sequence.

With `bits` the weights that stay are quantised in the same sweep (section 3.5 there): a column's values are rounded to
a grid spread over the dense weights (`_grid`) when its turn comes, and the columns to the right make up for that too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from harness.problems import Problem
from harness.pruning.solvers import Solved, zero
from harness.pruning.solvers._grid import Grid, spread
from harness.pruning.solvers._inverse import inverse_factor
from harness.ranges import Count, NonNegative

GROUP = "matrix"

_TILE = 16
"""Columns whose compensation is gathered by one matrix product."""


def solve(
    weight: Tensor,
    gram: Tensor,
    choose: Callable[[Tensor, float], Tensor],
    sparsity: float,
    period: int | None = None,
    length: float | Tensor | None = None,
    *,
    block: Count = 128,
    damping: NonNegative = 0.01,
    bits: Count | None = None,
    symmetric: bool = False,
    scale: Literal["row", "matrix"] = "row",
    as_released: bool = False,
) -> Solved:
    """SparseGPT: column-wise pruning with compensation through the inverse Hessian.

    Args:
        weight: [out, in], any floating dtype; worked on in float32.
        gram: X^T X over the calibration tokens at any scale, [in, in].
        choose: The pattern, (scores [out, columns], sparsity) -> keep.
        sparsity: Fraction of zeros.
        period: How many columns the pattern must see at once (N:M), or None for a slab at a time.
        length: Tokens of a sequence, for `as_released`.
        block: Width of a slab, rounded down to a multiple of `period`.
        damping: Added to the diagonal of `gram`, as a fraction of its mean.
        bits: Quantise what stays to so many bits; None leaves it as it is.
        symmetric: Whether the grid of the quantised values lies evenly about 0.
        scale: Whether each "row" has its own grid, or the "matrix" one.
        as_released: Damp and factorise as the released code does; `gram` is then the mean over the tokens, and
            `length` is not None.

    Raises:
        Problem: `gram` cannot be factorised even with a thousand times the damping, or `period` does not divide `in`.
    """
    rows, columns = weight.shape
    if period and columns % period:
        raise Problem(f"its {columns} inputs do not divide into groups of {period}")
    slab = min(columns, max(block - block % period, period) if period else block)
    factor, dead, damping = inverse_factor(gram, damping, 2 * float(length) if as_released else None)
    grid = spread(weight, bits, symmetric, scale) if bits else None
    work = weight.T.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    diagonal = factor.diagonal()[:, None]
    if as_released:
        work[dead] = 0
    else:
        diagonal = diagonal.masked_fill(dead[:, None], torch.inf)  # they cost nothing, and so go first
    keep = torch.empty(columns, rows, dtype=torch.bool, device=weight.device)
    errors = _Errors(torch.empty(slab, rows, device=weight.device), period or _TILE)
    for start in range(0, columns, slab):
        stop = min(start + slab, columns)
        here = slice(start, stop)
        inner = factor[here, here], diagonal[here]
        _solve_slab(work[here], keep[here], errors, *inner, lambda s: choose(s.T, sparsity).T, period, grid)
        work[stop:].addmm_(factor[start:stop, stop:].T, errors.all[: stop - start], alpha=-1)
    facts = {"damping": damping} | ({"dead_inputs": int(dead.sum())} if dead.any() else {})
    facts |= {"bits": bits} if bits else {}
    return Solved(work.T.to(weight.dtype).contiguous(), keep.T.contiguous(), slab, facts)


class _Errors:
    """The errors of a slab's columns, [columns, rows], in tiles; and what takes Python longer than the sums: views."""

    def __init__(self, errors: Tensor, tile: int) -> None:
        self.all, self.tile, self.each = errors, tile, errors.unbind()
        column = torch.arange(len(errors), device=errors.device)
        before = column % tile
        self.numbers = before.tolist()
        self.later = column.repeat_interleave(before)
        self.earlier = torch.cat([column[i - number : i] for i, number in enumerate(self.numbers)])
        self.before = [errors[i - number : i].T for i, number in enumerate(self.numbers)]

    def shares(self, factor: Tensor) -> tuple[Tensor, ...]:
        """Returns, for each column, what the errors before it in its tile weigh in it."""
        numbers = self.numbers[: len(factor)]
        among = sum(numbers)
        return factor[self.earlier[:among], self.later[:among]].split(numbers)


def _solve_slab(
    work: Tensor,
    keep: Tensor,
    errors: _Errors,
    factor: Tensor,
    diagonal: Tensor,
    choose: Callable,
    period: int | None,
    grid: Grid | None,
):
    """Prunes one slab in place; work, keep, errors are [columns, rows], so that a column lies together in memory."""
    share = torch.empty_like(work)  # of a weight in its column's error: 1 / U_ii where it is pruned, 0 where it stays
    if not period:
        keep.copy_(choose((work / diagonal).square()))
        torch.div(~keep, diagonal, out=share)
    values, parts, weights = work.unbind(), share.unbind(), errors.shares(factor)
    for first in range(0, len(work), errors.tile):
        last = min(first + errors.tile, len(work))
        work[first:last].addmm_(factor[:first, first:last].T, errors.all[:first], alpha=-1)
        if period:
            keep[first:last] = choose((work[first:last] / diagonal[first:last]).square())
            share[first:last] = ~keep[first:last] / diagonal[first:last]
        for i in range(first, last):
            if i > first:
                values[i].addmv_(errors.before[i], weights[i], alpha=-1)
            if grid:
                value = grid.nearest(values[i][:, None])[:, 0] * keep[i]
                torch.div(values[i] - value, diagonal[i], out=errors.each[i])
                values[i].copy_(value)
            else:
                torch.mul(values[i], parts[i], out=errors.each[i])
    zero(work, keep)
