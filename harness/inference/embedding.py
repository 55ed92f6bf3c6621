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
        factor: What a row is multiplied by.
    """

    def __init__(self, layer: PackedLinear, factor: float = 1.0) -> None:
        super().__init__()
        self.width, self.factor = layer.in_features, factor
        self.register_buffer("values", layer.values)
        self.register_buffer("scales", layer.scales if "scales" in layer.names else None)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns fp32 [..., width] for the numbers of tokens [...].

        Raises:
            IndexError: There is no such token.
        """
        rows = tokens.flatten()
        scales = None if self.scales is None else self.scales.index_select(0, rows)
        found = decode(self.values.index_select(0, rows), scales)[:, : self.width] * self.factor
        return found.reshape(*tokens.shape, self.width)


def tied(model: nn.Module, output: str) -> dict[str, float | None]:
    """Returns each embedding whose weight is that of the output layer, by all names that it goes by: its `factor`."""
    weight = model.get_submodule(output).weight
    modules = model.named_modules(remove_duplicate=False)
    return {name: factor(each) for name, each in modules if isinstance(each, nn.Embedding) and each.weight is weight}


def factor(embedding: nn.Embedding) -> float | None:
    """Returns what an embedding multiplies its rows by, `embed_scale` in transformers; None where it may do more."""
    scale = 1.0 if type(embedding).forward is nn.Embedding.forward else getattr(embedding, "embed_scale", None)
    return None if scale is None else float(scale)


def as_stored(codes: Tensor) -> Packed:
    """Returns a bfloat16 matrix [out, in] packed dense, where it lies if its rows are whole words."""
    tensors = {"values": codes} if codes.shape[1] % WORD == 0 else dense.pack(codes, 1)
    return Packed("dense", "bf16", tuple(codes.shape), tensors)
