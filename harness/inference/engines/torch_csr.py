"""PyTorch's compressed sparse rows: a float32 value and two integers' worth of place, for every weight that stays.

    bytes a weight = (1 - sparsity) (4 + 4)        dense float32: 4

Below half the weights zero it reads more than dense does. The product is MKL's.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from harness.inference.swap import prunable, swap

DEVICE = "cpu"


class CsrLinear(nn.Module):
    """y = W x + b with W in compressed sparse rows, 32-bit indices."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the layout is in beta
            rows = weight.to_sparse_csr()
            places = (rows.crow_indices().int(), rows.col_indices().int())
            self.register_buffer("matrix", torch.sparse_csr_tensor(*places, rows.values(), rows.shape))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., out] for [..., in]."""
        flat = x.reshape(-1, x.shape[-1])
        # a matrix of one column took MKL three times as long as a vector
        y = torch.mv(self.matrix, flat[0]) if len(flat) == 1 else (self.matrix @ flat.T).T
        y = y.reshape(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def prepare(model: nn.Module) -> nn.Module:
    """Compressed sparse rows in PyTorch, float32.

    Args:
        model: A model of transformers, float32.

    Returns:
        The model.
    """
    swap(model, [(name,) for name in prunable(model)], CsrLinear)
    return model


def available() -> str | None:
    """Returns why it cannot run here."""
    return None if torch.backends.mkl.is_available() else "PyTorch multiplies sparse rows with MKL, which it lacks here"


def exact() -> bool:
    """Says yes: only the order of the sums differs."""
    return True
