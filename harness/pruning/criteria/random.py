"""Random pruning: score ~ U(0, 1), the same for a layer's name and a seed on every machine.

The floor under every criterion: what the sparsity alone costs. Numbers are drawn on the CPU, whose generator does not
depend on the device, from a seed made of the option and the layer's name, so that no layer's mask depends on which
layers were pruned before it.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from harness.ranges import Whole

GROUP = "matrix"


def score(weight: Tensor, layer: str, *, seed: Whole = 0) -> Tensor:
    """Random: uniform scores that look at no weight.

    Args:
        weight: [out, in]; only its shape and device count.
        layer: Dotted name of the layer.
        seed: Another seed, another mask.

    Returns:
        Scores [out, in] in [0, 1), float32.
    """
    digest = hashlib.sha256(f"{seed}:{layer}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    return torch.rand(weight.shape, generator=generator).to(weight.device)
