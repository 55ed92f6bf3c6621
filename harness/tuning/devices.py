"""The devices that a run trains on: one, or several processes that hold the model each (DDP) or share it out (FSDP2).

`accelerate` gives each process its device, the arithmetic, the loss scale of fp16, and DDP. FSDP2 is torch's own
`fully_shard`, called here: accelerate turns it on only on GPUs, and the same code must run, and be tested, on CPUs.
Under it parameters are DTensors, which `whole` gives a method's functions as what they are in one process.

In one process every function here is idle. How processes are begun: `runs/processes.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy
import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from harness import models
from harness.device import device
from harness.problems import Problem
from harness.pruning import shares
from harness.runs.processes import ShareDone, parallel

DDP = DistributedDataParallelKwargs(broadcast_buffers=False)
"""Masks and tables are the same in every process without being sent."""
MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerator_for(precision: str) -> Accelerator:
    """Returns an accelerator for the harness's device; where that names a GPU, it becomes the current one.

    Args:
        precision: "fp32", or "bf16" or "fp16" for autocast over fp32 weights, the loss scaled in fp16.

    Raises:
        Problem: The device cannot train so, or accelerate takes another device than the harness's.
    """
    chosen = device()
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)  # accelerate asks for "cuda", which is the current device
    if precision == "fp16" and chosen.type == "cpu":
        raise Problem("this device cannot train in fp16: it is a CPU", where="precision", hint="write precision: bf16")
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps a process's first device and precision
    try:
        accelerator = Accelerator(mixed_precision=MIXED[precision], cpu=chosen.type == "cpu", kwargs_handlers=[DDP])
    except ValueError as error:
        raise Problem(f"this device cannot train in {precision}: {error}", hint="write precision: fp32") from None
    if _numbered(accelerator.device) != _numbered(chosen):
        hint = "a launcher gives each process its device: leave HARNESS_DEVICE unset under one"
        raise Problem(f"accelerate trains on {accelerator.device}, not on {chosen}", where="HARNESS_DEVICE", hint=hint)
    return accelerator


def _numbered(place: torch.device) -> torch.device:
    """Returns a device with its number: "cuda" alone means the current one; there is one CPU, whatever its number."""
    if place.type == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device()) if place == torch.device("cuda") else place


def said(accelerator: Accelerator) -> dict[str, Any]:
    """Returns what a summary tells of several processes: how many, and how the model lay in them; nothing of one."""
    count = accelerator.num_processes
    return {"processes": count, "parallel": parallel()} if count > 1 else {}


def recompute(model: nn.Module, wanted: bool) -> None:
    """Makes a block's backward run its forward again instead of keeping what it needs of it, if that is wanted.

    Args:
        model: A model of a known family, not wrapped; it does so in train mode until `unwrap`.
        wanted: Whether it shall.

    Raises:
        Problem: transformers cannot do that with this model.
    """
    if not wanted:
        return
    if not model.supports_gradient_checkpointing:
        raise Problem("this model cannot recompute its activations", where="recompute", hint="write recompute: false")
    model.activation_checkpointing_enable({"use_reentrant": False})


def shares_out(accelerator: Accelerator) -> bool:
    """Says whether this run's models are shared out over its processes (FSDP2)."""
    return accelerator.num_processes > 1 and parallel() == "fsdp"


def shard(model: nn.Module | None, accelerator: Accelerator) -> None:
    """Shares a model's parameters out over the processes, if this run trains so (FSDP2).

    A block at a time goes to the device, of which this process's share stays there: a model that is on the CPU is never
    whole on the device. Done before its optimiser is made, which then holds the shares. A teacher is shared out as the
    student is.

    Args:
        model: A model of a known family, a method attached to it or not; None is none to share out.
        accelerator: Of this run.
    """
    if model is None or not shares_out(accelerator):
        return
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # the only layout that FSDP takes
    for block in models.blocks(model):
        fully_shard(block.module, reshard_after_forward=True)
    fully_shard(model)  # what is in no block stays whole between forward and backward, for losses on hidden states


def spread(model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> tuple[nn.Module, Any]:
    """Returns model and optimiser as `accelerate` prepares them: autocast, the loss scale, DDP for what is not shared.

    Args:
        model: The student, from `shard`.
        optimizer: Over its parameters.
        accelerator: Of this run.
    """
    wrapped = accelerator.prepare_model(model, evaluation_mode=isinstance(model, FSDPModule))  # which leaves out DDP
    return wrapped, accelerator.prepare_optimizer(optimizer)


def unsynchronised(model: nn.Module, accelerator: Accelerator) -> AbstractContextManager:
    """Keeps the gradients of a micro-batch in each process while it is open; those of a step's last one are averaged.

    Args:
        model: The student, from `spread`.
        accelerator: Of this run.
    """
    return _local_gradients(model) if isinstance(model, FSDPModule) else accelerator.no_sync(model)


@contextmanager
def _local_gradients(model: FSDPModule) -> Iterator[None]:
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def check_reached(model: nn.Module, trained: Iterable[nn.Parameter]) -> None:
    """Makes sure that DDP averaged every gradient: it waits for those of all parameters.

    Args:
        model: The student, from `spread`, after a backward.
        trained: Its trained parameters.

    Raises:
        Problem: The loss depends on some parameters not at all.
    """
    if isinstance(model, DistributedDataParallel) and any(p.grad is None for p in trained):
        names = [name for name, p in model.module.named_parameters() if p.requires_grad and p.grad is None]
        what = f"the loss does not depend on {names[0]}, and DDP waits for its gradient"
        raise Problem(what, hint="train with --parallel fsdp, or add cross_entropy to the loss")


def draw(accelerator: Accelerator, seed: int, step: int, share: int | None) -> None:
    """Seeds the generators by run, step and process, so that several processes draw apart and resume from any step.

    One process draws on from its seed, and a checkpoint holds how far it is.

    Args:
        accelerator: Of this run.
        seed: Of the run.
        step: Steps done.
        share: The process; None for what all processes must draw alike.
    """
    if accelerator.num_processes > 1:
        words = (seed, step, 0 if share is None else 1 + share)
        set_seed(int(numpy.random.SeedSequence(words).generate_state(1)[0]))


def gathered(counts: list[list[int]], accelerator: Accelerator) -> list[list[list[int]]]:
    """Returns a table of numbers of every process, in their order."""
    if accelerator.num_processes == 1:
        return [counts]
    return accelerator.gather(torch.tensor([counts], device=accelerator.device)).tolist()


def total(x: Tensor) -> Tensor:
    """Returns the sum of a tensor over all processes, without a gradient; in one process the tensor itself."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    x = x.detach().clone()
    torch.distributed.all_reduce(x)
    return x


def check_alike(tensors: Mapping[str, Tensor], accelerator: Accelerator) -> None:
    """Makes sure that tensors of which every process has its own are the same in all of them.

    Args:
        tensors: By name.
        accelerator: Of this run.

    Raises:
        Problem: One differs; it is named.
    """
    if accelerator.num_processes == 1:
        return
    sums = [[zlib.crc32(t.detach().cpu().reshape(-1).view(torch.uint8).numpy()) for t in tensors.values()]]
    every = [table[0] for table in gathered(sums, accelerator)]
    for name, *found in zip(tensors, *every, strict=True):
        if len(set(found)) > 1:
            what = "the processes pruned it apart: what they compute is not the same bit for bit"
            raise Problem(what, where=name, hint="prune in a stage before, without tune.ramp")


def agreed(wanted: bool, accelerator: Accelerator) -> bool:
    """Returns whether any process wants something, which all of them then do at the same step."""
    if accelerator.num_processes == 1:
        return wanted
    return bool(accelerator.reduce(torch.tensor(int(wanted), device=accelerator.device)).item())


@contextmanager
def whole(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Gives tensors of which every process has a share as whole ones; what is changed in place goes back to the shares.

    Args:
        tensors: By name, shared out or not.
    """
    given = {name: shares.full(tensor) for name, tensor in tensors.items()}
    yield given
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            shares.put(given[name], tensor)


def whole_state(state: Any, keeps: bool) -> Any:
    """Returns a state dictionary with whole tensors, on the CPU where they were shared out; all processes must ask.

    Args:
        state: Dictionaries and lists of tensors and other values.
        keeps: Whether this process wants them; otherwise None stands for what was shared out.
    """
    if isinstance(state, Mapping):
        return {name: whole_state(value, keeps) for name, value in state.items()}
    if isinstance(state, list):
        return [whole_state(value, keeps) for value in state]
    if not isinstance(state, DTensor):
        return state
    tensor = state.full_tensor()
    return tensor.cpu() if keeps else None


def like(tensor: Tensor, reference: Tensor) -> Tensor:
    """Returns a whole tensor shared out as another one is, without a word between the processes."""
    shared = isinstance(reference, DTensor) and tensor.shape == reference.shape
    return shares.like(tensor, reference) if shared else tensor


@torch.no_grad()
def gather(model: nn.Module, accelerator: Accelerator) -> None:
    """Makes the model of the first process whole again, on the CPU if it was shared out, and ends the other processes.

    Args:
        model: The model that was given to `shard` and `spread`; its optimiser is of no use afterwards.
        accelerator: Of this run.

    Raises:
        ShareDone: This is not the first process.
    """
    if isinstance(model, FSDPModule):
        _take_hooks_off(model)
        _put_parameters_back(model, accelerator.is_main_process)
    if not accelerator.is_main_process:
        raise ShareDone


def _take_hooks_off(model: nn.Module) -> None:
    """Takes off a model what `fully_shard` hooked into it, which torch has no function for."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
            state = module._get_fsdp_state()
            state._pre_forward_hook_handle.remove()
            state._post_forward_hook_handle.remove()
            for group in state._fsdp_param_groups:
                saving = group._module_to_pre_save_state_dict_hook_handle.values()
                for handle in (*saving, *group._module_to_pre_load_state_dict_hook_handle.values()):
                    handle.remove()
            module.__class__ = type(module).__mro__[FSDPModule._orig_cls_mro_index]


def _put_parameters_back(model: nn.Module, keeps: bool) -> None:
    """Puts whole parameters on the CPU in place of shares, where this process keeps them; tied ones stay one."""
    plain: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, share in list(module.named_parameters(recurse=False)):
            if share not in plain:
                values = whole_state(share.data, keeps)
                plain[share] = nn.Parameter(values, share.requires_grad) if keeps else share
            module.register_parameter(name, plain[share])
    if keeps:
        model.to("cpu")


def unwrap(model: nn.Module, accelerator: Accelerator) -> None:
    """Leaves the model plain: on the CPU, in eval mode, no arithmetic but its own, nothing recomputed.

    Args:
        model: From `gather`.
        accelerator: Of this run.
    """
    accelerator.unwrap_model(model, keep_fp32_wrapper=False).to("cpu").eval()
    if getattr(model, "is_activation_checkpointing", False):
        model.activation_checkpointing_disable()
