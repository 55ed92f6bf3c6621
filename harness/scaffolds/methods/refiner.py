"""New method: in each row the best pruned weight takes the place of the worst kept one, to begin with.

Say here: paper, section, and what is done differently and why.
"""

from __future__ import annotations

import torch
from torch import BoolTensor, Tensor

GROUP = "row"
PATTERNS = ("unstructured",)


def refine(weight: Tensor, keep: BoolTensor, scores: Tensor) -> BoolTensor:
    """New method: one swap a row, where the scores gain by it, to begin with.

    Args:
        weight: The dense weight [out, in].
        keep: The mask of the criterion [out, in], True stays.
        scores: The criterion's scores [out, in].

    Returns:
        The mask after the swaps; every row keeps as many weights as before.
    """
    pruned, best = scores.masked_fill(keep, -torch.inf).max(dim=1, keepdim=True)
    kept, worst = scores.masked_fill(~keep, torch.inf).min(dim=1, keepdim=True)
    gains = pruned > kept
    return keep.scatter(1, worst, keep.gather(1, worst) & ~gains).scatter(1, best, keep.gather(1, best) | gains)
