"""Reconstruction error of every block: how far the pruned model's block outputs are from the dense model's.

    err_i = 1/C sum over channels of |D_i[:, ch] - O_i[:, ch]|^2 / |D_i[:, ch]|^2

D_i are block i's outputs in the dense model, O_i in the pruned one, over all tokens of the calibration batches, each in
its own path, so errors accumulate along the network. LoSA (arXiv:2502.14816, released code). A block's outputs depend
on no later block, so those of the whole pruned model are what the code sees while it prunes. Padding is left out, and
sums are of float64, where the code's are of bfloat16.

The dense outputs wait on the CPU, as in the released code: samples x tokens x width x blocks numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from harness import models
from harness.problems import Problem
from harness.pruning.paused import evaluating
from harness.tuning.forward import listening

Outputs = list[list[Tensor]]
"""By batch, then by block: what the block gave, [tokens that are no padding, width]."""


@torch.no_grad()
def outputs(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> Outputs:
    """Returns the outputs of a model's blocks, on the CPU.

    Args:
        model: A model of a known family, on its device.
        batches: Calibration batches, keyword arguments of the model.
    """
    with evaluating(model):
        return [_of_batch(model, batch, "cpu") for batch in batches]


@torch.no_grad()
def errors(dense: Outputs, model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> list[float]:
    """Returns each block's error.

    Args:
        dense: What `outputs` gave for the dense model and the same batches.
        model: The pruned model.
        batches: Calibration batches.

    Raises:
        Problem: A channel of a dense block's outputs is always 0.
    """
    width = [block.shape[-1] for block in dense[0]]
    norms, apart = ([torch.zeros(w, dtype=torch.float64, device=model.device) for w in width] for _ in range(2))
    with evaluating(model):
        for before, batch in zip(dense, batches, strict=True):
            for index, (was, now) in enumerate(zip(before, _of_batch(model, batch, model.device), strict=True)):
                was = was.to(model.device).double()
                norms[index] += was.square().sum(0)
                apart[index] += (was - now.double()).square().sum(0)
    for index, norm in enumerate(norms):
        if not norm.all():
            dead = f"{int((norm == 0).sum())} of its output channels are 0 on all calibration tokens"
            raise Problem(f"block {index} has no relative error: {dead}", hint="more, or other, calibration samples")
    return [float((a / n).mean()) for a, n in zip(apart, norms, strict=True)]


def _of_batch(model: nn.Module, batch: Mapping[str, Tensor], place: torch.device | str) -> list[Tensor]:
    """Runs the model on a batch; returns the outputs of its blocks, without padding."""
    batch = models.placed(model, batch)
    blocks, valid = models.blocks(model), models.valid(model, batch)
    with listening([block.module for block in blocks]) as heard:
        model(**batch)
    return [heard[block.module][valid[block.stack]].to(place) for block in blocks]
