"""Embeddings that share their matrix, packed dense, with the output layer: it is looked up and multiplied by."""

from __future__ import annotations

from torch import Tensor, nn

from harness.inference.formats import Packed, dense
from harness.inference.kernels.linear import PackedLinear
from harness.inference.values import WORD, decode


class PackedEmbedding(nn.Module):
    """Looks up rows of the matrix that a layer multiplies by; a row is decoded when it is looked up.

    Args:
        layer: Packed dense.
    """

    def __init__(self, layer: PackedLinear) -> None:
        super().__init__()
        self.width = layer.in_features
        self.register_buffer("values", layer.values)
        self.register_buffer("scales", layer.scales if "scales" in layer.names else None)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns fp32 [..., width] for the numbers of tokens [...]."""
        scales = None if self.scales is None else self.scales[tokens.flatten()]
        return decode(self.values[tokens.flatten()], scales)[:, : self.width].reshape(*tokens.shape, self.width)


def tied(model: nn.Module, output: str) -> list[str]:
    """Returns the names, all that it goes by, of each embedding whose weight is that of the output layer."""
    weight = model.get_submodule(output).weight
    modules = model.named_modules(remove_duplicate=False)
    return [name for name, module in modules if isinstance(module, nn.Embedding) and module.weight is weight]


def as_stored(codes: Tensor) -> Packed:
    """Returns a bfloat16 matrix [out, in] packed dense, where it lies if its rows are whole words."""
    tensors = {"values": codes} if codes.shape[1] % WORD == 0 else dense.pack(codes, 1)
    return Packed("dense", "bf16", tuple(codes.shape), tensors)
