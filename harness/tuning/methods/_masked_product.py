"""The product of inputs with a masked low-rank update, which keeps nothing the size of the weight for its backward.

    y = x V^T,   V = W + s (B A) o M,   or V = s (B A) o M alone

V is made a band of rows at a time, used and forgotten, and made again in the backward: a band stays in the processor's
cache, so that neither pass writes a matrix the size of the weight to memory. Kept are x, and W, M, B, A by reference.

The gradients of A and B are exact, through G^T x masked and scaled, unless a method drops the mask or the scale there:
without the mask the thin products `(G B)^T x` and `G^T (x A^T)` do, and G^T x is never formed (LoRS, arXiv:2501.08582).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import BoolTensor, Tensor

from harness.tuning.bits import Bits

CPU_BAND = 2**21
"""Numbers of a band on a CPU: 8 MiB of float32; smaller make the products thin, larger leave the cache."""
BAND = 2**24
"""Numbers of a band elsewhere."""


@dataclass(frozen=True)
class Update:
    """What is multiplied with, and which gradient its two factors get.

    Attributes:
        scale: s.
        masked: The factors' gradient goes through the mask; False lets it pass where weights are pruned, too.
        scaled: The factors' gradient has the factor s.
    """

    scale: float
    masked: bool = True
    scaled: bool = True


def product(x: Tensor, weight: Tensor | None, keep: Bits, a: Tensor, b: Tensor, update: Update) -> Tensor:
    """Returns x V^T, [..., out], in autocast's dtype, in that of x where there is none.

    Args:
        x: [..., in].
        weight: W [out, in], frozen, 0 where keep is False; None leaves it out of V.
        keep: M [out, in], True stays.
        a: A [rank, in].
        b: B [out, rank].
        update: Scale and kind of gradient.
    """
    return _Product.apply(x, weight, keep, a, b, update, compute_dtype(x))


def merged(weight: Tensor, keep: BoolTensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Returns (W + s B A) o M [out, in] in the weight's dtype, computed in float32 at least."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return torch.addmm(weight.to(wide), b.to(wide), a.to(wide), alpha=scale).mul_(keep).to(weight.dtype)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Returns the dtype of products with x: autocast's where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def bands(keep: Bits, on_cpu: int | None = None) -> Iterator[slice]:
    """Yields the rows of a matrix in bands, on a CPU of as many numbers as given, or `CPU_BAND`."""
    rows, columns = keep.shape
    size = max(1, ((on_cpu or CPU_BAND) if keep.device.type == "cpu" else BAND) // columns)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        keep: Bits,
        a: Tensor,
        b: Tensor,
        update: Update,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.keep, ctx.update, ctx.dtype = keep, update, dtype
        with torch.autocast(x.device.type, enabled=False):
            flat = flattened(x, dtype)
            y = flat.new_empty(len(flat), len(b))
            for rows, band in _bands(weight, keep, a, b, update, dtype):
                torch.mm(flat, band.t(), out=y[:, rows])
        return y.view(*x.shape[:-1], len(b))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        keep = ctx.keep
        refuse(ctx.needs_input_grad[1])
        dx = da = db = None
        with torch.autocast(x.device.type, enabled=False):
            g = flattened(gradient, ctx.dtype)
            if ctx.needs_input_grad[0]:
                dx = g.new_zeros(len(g), x.shape[-1])
                for rows, band in _bands(weight, keep, a, b, ctx.update, ctx.dtype):
                    dx.addmm_(g[:, rows], band)
                dx = dx.view_as(x).to(x.dtype)
            if ctx.needs_input_grad[3] or ctx.needs_input_grad[4]:
                through = _exact if ctx.update.masked else _rearranged
                da, db = through(flattened(x, ctx.dtype), g, keep, a, b)
                if ctx.update.scaled:
                    da, db = da.mul_(ctx.update.scale), db.mul_(ctx.update.scale)
        return dx, None, None, da, db, None, None


def refuse(weight: bool) -> None:
    """Refuses, in a backward that is written by hand, what it has not.

    Args:
        weight: Whether a gradient of the weight is asked for.

    Raises:
        RuntimeError: It is, or a derivative of the gradient is.
    """
    if weight:
        raise RuntimeError("this method's weight is frozen: it has no gradient")
    if torch.is_grad_enabled():  # by create_graph
        raise RuntimeError("this method's gradient cannot be differentiated again")


def flattened(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a tensor [..., columns] as [tokens, columns] in this dtype."""
    return x.reshape(-1, x.shape[-1]).to(dtype)


def _bands(
    weight: Tensor | None, keep: Bits, a: Tensor, b: Tensor, update: Update, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    """Yields V in bands, each with its rows; a band is overwritten by the next."""
    a, b = a.to(dtype), (b * update.scale).to(dtype)
    held = None
    for rows in bands(keep):
        held = a.new_empty(rows.stop - rows.start, keep.shape[1]) if held is None else held
        band = torch.mm(b[rows], a, out=held[: rows.stop - rows.start])
        mask = keep.numbers(rows, dtype)
        yield rows, band.mul_(mask) if weight is None else torch.addcmul(weight[rows].to(dtype), band, mask, out=band)


def _rearranged(x: Tensor, g: Tensor, keep: Bits, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the gradients of A and B without mask and scale, as thin products."""
    da = (g @ b.to(g.dtype)).t() @ x
    db = g.t() @ (x @ a.to(g.dtype).t())
    return da.to(a.dtype), db.to(b.dtype)


def _exact(x: Tensor, g: Tensor, keep: Bits, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the gradients of A and B through the mask, without the scale."""
    da, db = torch.zeros_like(a), torch.empty_like(b)
    thin_a, thin_b = a.to(g.dtype), b.to(g.dtype)
    for rows in bands(keep):
        gradient = (g[:, rows].t() @ x).mul_(keep.numbers(rows, g.dtype))
        da += thin_b[rows].t() @ gradient
        db[rows] = (gradient @ thin_a.t()).to(b.dtype)
    return da, db
