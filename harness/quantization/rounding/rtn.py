"""Round to nearest: every kept weight takes the value of its grid that is closest, q = round(w / scale) + zero.

What SmoothQuant (arXiv:2211.10438) does to weights, and the baseline of GPTQ (arXiv:2210.17323, section 5). It looks at
no data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.quantization.grid import Grid
from harness.quantization.rounding import Rounded


def round(weight: Tensor, keep: Tensor, grid: Grid) -> Rounded:
    """Round to nearest: each weight by itself.

    Args:
        weight: [out, in], any floating dtype.
        keep: Bool [out, in], True stays.
        grid: The values that a weight may take.
    """
    codes = grid.encode(weight)
    return Rounded(torch.where(keep, codes, grid.zeros(codes)))
