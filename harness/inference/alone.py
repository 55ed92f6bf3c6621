"""A generation timed in a process of its own: for another program's runtime, whose threads would take our cores.

The process begins fresh, is given the model, and nothing else of ours runs until it ends. So its rounds are not
interleaved with the dense baseline's, and what disturbs the machine may disturb one of them alone.
"""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness import rooms
from harness.inference.agreement import Reference, agreement
from harness.inference.greedy import Run, generate
from harness.inference.prompts import prompts

if TYPE_CHECKING:
    from harness.inference.measure import Setting


def measure(
    model: nn.Module, engine: str, setting: Setting, threads: int, dense: Reference
) -> tuple[list[Run], dict[str, Any]]:
    """Measures a peer.

    Args:
        model: Dense float32 weights on the CPU.
        engine: A choice of the room `engine`.
        setting: What is generated.
        threads: Threads of the CPU.
        dense: What the dense model generated.

    Returns:
        Its runs, those of the warm-up too, and its agreement with the dense model.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        # a copy: what another process is given moves into shared memory, where the baseline's weights should not be
        return pool.submit(_measure, copy.deepcopy(model), engine, setting, threads, dense).result()


def _measure(
    model: nn.Module, engine: str, setting: Setting, threads: int, dense: Reference
) -> tuple[list[Run], dict[str, Any]]:
    torch.set_num_threads(threads)
    inputs = prompts(model, setting.batch, setting.prompt, seed=setting.seed)
    peer = rooms.bind("engine", engine)(model)
    agreed = agreement(peer, inputs, dense)
    return [generate(peer, inputs, setting.tokens) for _ in range(setting.warmup + setting.repeats)], agreed
