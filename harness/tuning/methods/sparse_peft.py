"""SparsePEFT: `y = x W^T + dropout(x) [s (B A) o M]^T`, a LoRA whose product is masked, s = alpha / rank.

Munoz et al., SQFT, arXiv:2410.03750, as in its release (a patch of peft): the gradients of A and B are exact, through
the mask. Where nothing is dropped the two products are one, `x [W + s (B A) o M]^T`, and it is computed so; neither
form keeps the masked product for the backward, which costs the release a weight's size in memory
(`_masked_product.py`). The mask is that of pruning and not `W != 0`. `scaled=false` leaves s out altogether, as the
re-implementation in the released code of LoRS does, which computes its scale and never uses it.

`ranks`, such as 32-24-16, is the neural low-rank search of SQFT: each training forward draws one of these ranks and
uses that many of the first rows of A and columns of B, and what is merged is the middle one, its heuristic choice.
As in the release q, k and v of a block share a draw: here whoever reads the same input does, gate and up too, and in
T5 the k and v of every cross-attention.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import BoolTensor, Tensor
from torch.nn.functional import linear

from harness.problems import Problem
from harness.ranges import Count, Positive, Sparsity
from harness.tuning.bits import Bits
from harness.tuning.methods._masked_product import Update, merged, product
from harness.tuning.methods.lora import dropped, factors

FREEZES = True
RANK = "rank"
ONLY_WITH = {"alpha": {"scaled": True}}


def prepare(weight: Tensor, keep: BoolTensor, *, rank: Count = 16, ranks: str | None = None) -> dict[str, Tensor]:
    """A LoRA whose product is masked, so that it merges into the zeros; exact gradients.

    Args:
        weight: [out, in].
        keep: [out, in], True stays.
        rank: Rows of A and columns of B.
        ranks: Ranks to draw from, largest first, joined by -; the largest is `rank`. None always uses `rank`.

    Returns:
        `lora_A` [rank, in] and `lora_B` [out, rank], in float32 at least.

    Raises:
        Problem: `ranks` cannot be read, or does not begin with `rank`.
    """
    if ranks is not None:
        read = _space(ranks)
        if read[0] != rank or sorted(read, reverse=True) != read or read[-1] < 1:
            raise Problem(f"ranks={ranks} should fall from rank={rank}", hint="write rank=32,ranks=32-24-16")
    return factors(weight, rank)


def _space(ranks: str) -> list[int]:
    try:
        return [int(part) for part in ranks.split("-")]
    except ValueError:
        raise Problem(f"cannot read ranks={ranks}", hint="write 32-24-16") from None


def adapt(
    x: Tensor,
    weight: Tensor,
    keep: Bits,
    trained: Mapping[str, Tensor],
    training: bool,
    *,
    alpha: Positive = 16.0,
    dropout: Sparsity = 0.0,
    scaled: bool = True,
    ranks: str | None = None,
) -> Tensor:
    """Returns x W^T + dropout(x) [s (B A) o M]^T, [..., out].

    Args:
        x: [..., in].
        weight: [out, in], sparse and frozen.
        keep: [out, in].
        trained: `lora_A` [rank, in] and `lora_B` [out, rank].
        training: Whether the layer is in training mode, on which dropout and drawn ranks depend.
        alpha: Numerator of the scale, over the largest rank.
        dropout: Probability to drop an input of the adapter.
        scaled: False takes 1 for the scale.
        ranks: As for `prepare`.
    """
    a, b = (trained[name] for name in ("lora_A", "lora_B"))
    update = Update(_scale(a, alpha, scaled))
    if ranks is not None:
        space = _space(ranks)
        used = space[_drawn(x, len(space)) if training else _middle(space)]
        a, b = a[:used], b[:, :used]
    inner = dropped(x, dropout, training)
    if inner is x:
        return product(x, weight, keep, a, b, update)
    return linear(x, weight) + product(inner, None, keep, a, b, update)


def merge(
    weight: Tensor,
    keep: BoolTensor,
    trained: Mapping[str, Tensor],
    *,
    alpha: Positive = 16.0,
    scaled: bool = True,
    ranks: str | None = None,
) -> Tensor:
    """Returns (W + s B A) o M [out, in], computed in float32 at least; of the middle rank where there are several."""
    a, b = (trained[name] for name in ("lora_A", "lora_B"))
    used = len(a) if ranks is None else _space(ranks)[_middle(_space(ranks))]
    return merged(weight, keep, a[:used], b[:, :used], _scale(a, alpha, scaled))


def _drawn(x: Tensor, count: int) -> int:
    """Returns one of `count` places, the same for all that read a tensor; each draws, so that a recomputation can."""
    drawn = int(torch.randint(count, ()))
    if not hasattr(x, "drawn"):
        x.drawn = drawn
    return x.drawn


def _middle(space: list[int]) -> int:
    return (len(space) - 1) // 2


def _scale(a: Tensor, alpha: float, scaled: bool) -> float:
    return alpha / len(a) if scaled else 1.0
