"""Slow, plain versions of the low-rank and scaling methods, written from their definitions for autograd."""

from __future__ import annotations

import torch

OUT, IN, RANK = 48, 40, 4


def parts(dtype=torch.float64, out=OUT, columns=IN, rank=RANK, lead=(3, 5), seed=0):
    """x, W (pruned), M, A and B of which nothing is 0, and the gradient of y; x, A and B ask for gradients."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    keep = torch.rand(out, columns, generator=draw) < 0.5
    x, a, b = normal(*lead, columns), 0.3 * normal(rank, columns), 0.3 * normal(out, rank)
    for tensor in (x, a, b):
        tensor.requires_grad_()
    return x, normal(out, columns) * keep, keep, {"lora_A": a, "lora_B": b}, normal(*lead, out)


def lora(x, weight, keep, a, b, scale):
    return x @ weight.T + scale * (x @ a.T @ b.T)


def masked(x, weight, keep, a, b, scale):
    """LoRS and the fused form of SparsePEFT."""
    return x @ ((weight + scale * (b @ a)) * keep).T


def spp(x, weight, p, q, scale):
    each = torch.stack([q[row] * p[row * len(p) // len(q)] for row in range(len(q))])
    return x @ weight.T + scale * (x @ (each * weight).T)


def released_lors(x, weight, keep, a, b, gradient):
    """The gradients of A and B in LoRS's released code: of x W'^T, but without mask and scale."""
    flat, g = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    whole = g.T @ flat
    return b.T @ whole, whole @ a.T


def gradients(y, gradient, *inputs):
    """y and the gradients of the inputs for a gradient of y."""
    return y, *torch.autograd.grad(y, inputs, gradient)
