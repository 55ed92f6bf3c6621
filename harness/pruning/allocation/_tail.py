"""The heavy tail of a matrix's spectrum: the exponent alpha of a power law p(x) ~ x^-alpha above some xmin.

alpha(xmin) = 1 + n / sum of ln(x_k / xmin) over the n eigenvalues x_k of W^T W from xmin on (Hill's estimate). The
released code of AlphaPruning (arXiv:2410.10912) has two rules for xmin; both work on float32 here, as there, because
the choice between two near-equal fits turns on the last bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.problems import Problem

BINS = 100


@torch.no_grad()
def alpha(weight: Tensor, xmin: str) -> float:
    """Returns the exponent of a matrix [out, in]; larger is a lighter tail.

    Args:
        weight: The matrix.
        xmin: "peak" or "mid", see `_peak` and `_mid`.

    Raises:
        Problem: It has no such tail: fewer than two singular values, one of them 0, or all of one size.
    """
    eigenvalues = torch.linalg.svdvals(weight.float()).square().sort().values.cpu()
    if len(eigenvalues) < 2 or not eigenvalues.isfinite().all() or not eigenvalues[0] > 0:
        raise Problem(f"its spectrum has no tail to fit: {len(eigenvalues)} values from {float(eigenvalues[0]):.3g}")
    exponent = float((_peak if xmin == "peak" else _mid)(eigenvalues))
    if not 1 < exponent < float("inf"):
        raise Problem(f"its spectrum follows no power law: the exponent is {exponent:g}")
    return exponent


def _hill(logs: Tensor, start: int) -> Tensor:
    n = float(len(logs) - start)
    return 1 + n / (logs[start:].sum() - n * logs[start])


def _mid(eigenvalues: Tensor) -> Tensor:
    """Hill's estimate from the median eigenvalue on."""
    return _hill(eigenvalues.log(), len(eigenvalues) // 2)


def _peak(eigenvalues: Tensor) -> Tensor:
    """The estimate that fits best among the xmin up to 1.5 times the peak of the spectrum's logarithmic histogram.

    The fit is the Kolmogorov-Smirnov distance. The released code also has a lower gate, log10(0.95 * peak), which
    compares a logarithm with an eigenvalue and so hardly ever acts; the published rates come from it, and so do ours.
    """
    decades, logs = eigenvalues.log10(), eigenvalues.log()
    low, high = decades.min(), decades.max()
    counts = torch.histc(decades, BINS, min=low.item(), max=high.item())
    peak = 10 ** torch.linspace(low.item(), high.item(), BINS + 1)[counts.argmax()]
    first, last = torch.log10(0.95 * peak), 1.5 * peak
    best, distance = torch.tensor(0.0), torch.tensor(1.0)
    for start, xmin in enumerate(eigenvalues[:-1]):
        if xmin < first:
            continue
        if xmin > last:
            break
        n, estimate = float(len(eigenvalues) - start), _hill(logs, start)
        model = 1 - (eigenvalues[start:] / xmin) ** (1 - estimate)
        apart = (model - torch.arange(n) / n).abs().max()
        if apart < distance:
            best, distance = estimate, apart
    return best
