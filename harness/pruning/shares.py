"""Weights that several processes share out (FSDP2), while a walk is at them: whole, one block at a time.

    walking(model)      FSDP leaves the model alone; what is in no block is whole
      borrowed(block)   the block is whole, and what was changed in it goes back to every process's share

A walk pauses its passes at the door of a block and runs the block itself, which FSDP's own gathering, hooked to a whole
forward pass, cannot follow. All processes must walk alike: gathering is a word between all of them. A model that is
not shared out is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def walking(model: nn.Module) -> Iterator[None]:
    """Stops FSDP's hooks, and makes whole what is in no block (embeddings, norms, heads), while it is open.

    Args:
        model: The model; what is done to its parameters outside blocks is lost.
    """
    if not _shared_out(model):
        yield
        return
    stopped: list[tuple[dict[int, Any], int, Any]] = []
    for module in filter(_shared_out, model.modules()):
        state = module._get_fsdp_state()  # torch has no function for this
        for hooks, handle in (
            (module._forward_pre_hooks, state._pre_forward_hook_handle),
            (module._forward_hooks, state._post_forward_hook_handle),
        ):
            stopped.append((hooks, handle.id, hooks[handle.id]))
            hooks[handle.id] = _nothing  # in its place, so that the order of hooks stays
    try:
        model.unshard()
        yield
    finally:
        model.reshard()
        for hooks, number, hook in stopped:
            hooks[number] = hook


@contextmanager
def borrowed(block: nn.Module) -> Iterator[None]:
    """Makes a block's parameters whole while it is open; then every process takes its share of what they have become.

    Args:
        block: The module of a block, of a model that is `walking`.
    """
    if not _shared_out(block):
        yield
        return
    block.reshard()
    shares = dict(block.named_parameters())
    block.unshard()
    try:
        yield
        for name, parameter in block.named_parameters():
            put(parameter.data, shares[name])
    finally:
        block.reshard()


@torch.no_grad()
def put(whole: Tensor, share: Tensor) -> None:
    """Writes this process's share of a whole tensor, without a word between the processes.

    Args:
        whole: The tensor, the same in every process.
        share: The DTensor of that shape which is written to.
    """
    share.to_local().copy_(like(whole, share).to_local())


def full(tensor: Tensor) -> Tensor:
    """Returns the whole of a tensor of which every process has a share, for which all of them ask; another as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(whole: Tensor, share: Tensor) -> Tensor:
    """Returns a whole tensor shared out as a DTensor is, without a word between the processes."""
    from torch.distributed.tensor import distribute_tensor  # half a second, of no use in one process

    place = whole.to(share.device)
    return distribute_tensor(place, share.device_mesh, share.placements, src_data_rank=None)


def _shared_out(module: nn.Module) -> bool:
    return hasattr(module, "unshard")  # not by its type, whose import takes half a second


def _nothing(*_: Any) -> None:
    return None
