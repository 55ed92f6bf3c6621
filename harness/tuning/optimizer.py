"""AdamW with decoupled weight decay on matrices only: biases and norm weights are not decayed.

Loshchilov and Hutter, arXiv 1711.05101; the parameter groups are those of SquareHead's T5 and Whisper scripts.
"""

from __future__ import annotations

import torch
from torch import nn


def adamw(
    model: nn.Module, *, lr: float, weight_decay: float = 0.0, beta1: float = 0.9, beta2: float = 0.999
) -> torch.optim.AdamW:
    """Returns AdamW over every trainable parameter.

    Args:
        model: The model; tied parameters count once.
        lr: The peak learning rate; the loop sets the rate of each step.
        weight_decay: For parameters of two and more dimensions.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(beta1, beta2))
