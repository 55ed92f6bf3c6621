"""SPP: `y = x W^T + s dropout(x) (E o W)^T`, a weight scaled by rows and columns, so that a zero stays 0.

Lu et al., arXiv:2405.16057, equation 5, and their released code. E [out, in] is q_i P_bj: q has a number for each
output, P one for each input in each of `blocks` equal blocks b of consecutive outputs. q begins at 0, P uniform
(Kaiming, a = sqrt 5); s = alpha / rank, where rank serves for nothing else. Merged: W o (1 + s E).

Different from the release: where nothing is dropped the two products are one. E o W is made a block at a time and made
again in the backward, never kept, which takes neither the release's checkpoint (a second product with x) nor its other
form (a scaled copy of x for each block); the gradients are exact and are formed a block at a time, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import BoolTensor, Tensor, nn
from torch.nn.functional import linear

from harness.problems import Problem
from harness.ranges import Count, Positive, Sparsity
from harness.tuning.bits import Bits
from harness.tuning.methods._masked_product import compute_dtype, flattened, refuse
from harness.tuning.methods.lora import dropped

FREEZES = True


def prepare(weight: Tensor, keep: BoolTensor, *, blocks: Count = 16) -> dict[str, Tensor]:
    """Learned factors of the kept weights' rows and columns, merged into them.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
        blocks: Into how many blocks of rows the weight is cut, each with its own factors of the columns.

    Returns:
        `spp_P` [blocks, in] and `spp_q` [out, 1], in float32 at least.

    Raises:
        Problem: The outputs do not come in that many equal blocks.
    """
    rows, columns = weight.shape
    if rows % blocks:
        fitting = max(n for n in range(1, blocks) if rows % n == 0)
        raise Problem(f"{rows} outputs are no {blocks} equal blocks", where="blocks", hint=f"{fitting} would do here")
    p = weight.new_empty(blocks, columns, dtype=torch.promote_types(weight.dtype, torch.float32))
    nn.init.kaiming_uniform_(p, a=math.sqrt(5))
    return {"spp_P": p, "spp_q": p.new_zeros(rows, 1)}


def adapt(
    x: Tensor,
    weight: Tensor,
    keep: Bits,
    trained: Mapping[str, Tensor],
    training: bool,
    *,
    rank: Positive = 8.0,
    alpha: Positive = 16.0,
    dropout: Sparsity = 0.0,
) -> Tensor:
    """Returns x W^T + s dropout(x) (E o W)^T, [..., out].

    Args:
        x: [..., in].
        weight: [out, in], sparse and frozen.
        keep: [out, in]; not needed, since a product with 0 is 0.
        trained: `spp_P` [blocks, in] and `spp_q` [out, 1].
        training: Whether the layer is in training mode, on which dropout depends.
        rank: Denominator of the scale.
        alpha: Numerator of the scale.
        dropout: Probability to drop an input of the added product.
    """
    p, q = (trained[name] for name in ("spp_P", "spp_q"))
    inner = dropped(x, dropout, training)
    if inner is x:
        return _Product.apply(x, weight, p, q, alpha / rank, 1.0, compute_dtype(x))
    return linear(x, weight) + _Product.apply(inner, weight, p, q, alpha / rank, 0.0, compute_dtype(x))


def merge(
    weight: Tensor,
    keep: BoolTensor,
    trained: Mapping[str, Tensor],
    *,
    rank: Positive = 8.0,
    alpha: Positive = 16.0,
) -> Tensor:
    """Returns W o (1 + s E) [out, in], computed in float32 at least."""
    p, q = (trained[name] for name in ("spp_P", "spp_q"))
    wide = (weight * keep).to(torch.promote_types(weight.dtype, p.dtype))
    return torch.cat([band for _, band in _bands(wide, p, q, alpha / rank, 1.0, wide.dtype)]).to(weight.dtype)


def _bands(
    weight: Tensor, p: Tensor, q: Tensor, scale: float, one: float, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """Yields W o (one + s E) block by block, each with its rows."""
    for rows, columns in _blocks(p, q):
        band = (q[rows] * scale).to(dtype) * columns.to(dtype)
        yield rows, (band.add_(one) if one else band).mul_(weight[rows])


def _blocks(p: Tensor, q: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields the rows of each block and its factors of the columns [1, in]."""
    size = len(q) // len(p)
    for index in range(len(p)):
        yield slice(index * size, (index + 1) * size), p[index : index + 1]


class _Product(torch.autograd.Function):
    """x [W o (one + s E)]^T."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, p: Tensor, q: Tensor, scale: float, one: float, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(x, weight, p, q)
        ctx.options = scale, one, dtype
        with torch.autocast(x.device.type, enabled=False):
            flat = flattened(x, dtype)
            y = flat.new_empty(len(flat), len(q))
            for rows, band in _bands(weight, p, q, scale, one, dtype):
                torch.mm(flat, band.t(), out=y[:, rows])
        return y.view(*x.shape[:-1], len(q))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, p, q = ctx.saved_tensors
        scale, one, dtype = ctx.options
        refuse(ctx.needs_input_grad[1])
        dx, dp, dq = None, torch.empty_like(p), torch.empty_like(q)
        with torch.autocast(x.device.type, enabled=False):
            g, flat = flattened(gradient, dtype), flattened(x, dtype)
            if ctx.needs_input_grad[0]:
                dx = torch.zeros_like(flat)
                for rows, band in _bands(weight, p, q, scale, one, dtype):
                    dx.addmm_(g[:, rows], band)
                dx = dx.view_as(x).to(x.dtype)
            for index, (rows, columns) in enumerate(_blocks(p, q)):
                inner = (g[:, rows].t() @ flat).mul_(weight[rows])  # the gradient of s E in this block
                dp[index] = (q[rows].to(dtype).t() @ inner)[0].to(p.dtype) * scale
                dq[rows] = (inner @ columns.to(dtype).t()).to(q.dtype) * scale
        return dx, None, dp, dq, None, None, None
