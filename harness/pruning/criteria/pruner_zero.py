"""Pruner-Zero: score_ij = w_ij^2 * (g_ij - min g) / (max g - min g), g the root mean square gradient of each weight.

Dong et al., "Pruner-Zero: Evolving Symbolic Pruning Metric from Scratch for Large Language Models", ICML 2024,
arXiv:2406.02924: the formula that its search found, as the released code has it in `best_tree.json`. The minimum and
the maximum are the matrix's, the comparison is within each output row. Its g is a root of sums over sequences (GBLM's),
whose constant factor the scaling takes out.
"""

from __future__ import annotations

from torch import Tensor

from harness.problems import Problem

GROUP = "row"


def score(weight: Tensor, gradient_norm: Tensor) -> Tensor:
    """Pruner-Zero: squared weight times the gradient's size scaled to [0, 1] in the matrix.

    Args:
        weight: [out, in].
        gradient_norm: Root mean square of each weight's gradient over the calibration sequences, [out, in], float32.

    Returns:
        Scores [out, in], float32.

    Raises:
        Problem: The gradient is the same everywhere, and so tells nothing.
    """
    low, high = gradient_norm.aminmax()
    if low == high:
        raise Problem(f"the gradient of every weight has the same size, {float(low):g}")
    return weight.float().square() * ((gradient_norm - low) / (high - low))
