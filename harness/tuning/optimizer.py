"""AdamW with decoupled weight decay on matrices only: biases and norm weights are not decayed.

Loshchilov and Hutter, arXiv 1711.05101; the parameter groups are those of SquareHead's T5 and Whisper scripts. `aged`
takes the AdamW of sparse deltas (`aged.py`), which decays whatever is trained: deltas lie in vectors, and their decay
pulls a weight back to where it was. torch's fused update goes over memory once: on a CPU it takes a third of the time.
"""

from __future__ import annotations

import torch
from torch import nn

from harness.tuning.aged import AgedAdamW

EPS, AGED_EPS = 1e-8, 1e-6
"""What is added to sqrt(v): torch's, and that of SpIEL's release."""


def adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float | None = None,
    aged: bool = False,
) -> torch.optim.AdamW | AgedAdamW:
    """Returns AdamW over every trainable parameter.

    Args:
        model: The model; tied parameters count once.
        lr: The peak learning rate; the loop sets the rate of each step.
        weight_decay: For parameters of two and more dimensions; with `aged` for all.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the root of the second moment; None is 1e-8, with `aged` 1e-6.
        aged: Counts the updates of every single number.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if aged:
        return AgedAdamW(
            trained, lr=lr, betas=(beta1, beta2), eps=AGED_EPS if eps is None else eps, weight_decay=weight_decay
        )
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    eps = EPS if eps is None else eps
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(beta1, beta2), eps=eps, fused=True)
