"""A generation timed in a process of its own: for another program's runtime, whose threads would take our cores.

The process begins fresh, is given the model, and nothing else of ours runs until it ends. So its rounds are not
interleaved with the dense baseline's, and what disturbs the machine may disturb one of them alone.
"""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
import signal
from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness import output, rooms
from harness.inference.agreement import Reference, agreement
from harness.inference.greedy import Run, generate
from harness.inference.prompts import prompts
from harness.problems import Problem

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

    Raises:
        Problem: The process was ended from outside, or by its runtime.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context, initializer=output.quiet) as pool:
            # a copy: what another process is given moves into shared memory, where the baseline's weights should not be
            work = pool.submit(_measure, copy.deepcopy(model), engine, setting, threads, dense)
            workers = multiprocessing.active_children()
            return work.result()
    except BrokenProcessPool as error:
        raise _gone(engine, workers) from error


def _gone(engine: str, workers: Iterable[BaseProcess]) -> Problem:
    code = next((worker.exitcode for worker in workers if worker.exitcode), 0)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    hint = "SIGKILL is the system's where memory ran out, and a copy of the model lies there: a smaller batch or prompt"
    return Problem(f"the process of the engine {engine!r} {how}", hint=hint)


def _measure(
    model: nn.Module, engine: str, setting: Setting, threads: int, dense: Reference
) -> tuple[list[Run], dict[str, Any]]:
    torch.set_num_threads(threads)
    inputs = prompts(model, setting.batch, setting.prompt, seed=setting.seed)
    peer = rooms.bind("engine", engine)(model)
    agreed = agreement(peer, inputs, dense)
    return [generate(peer, inputs, setting.tokens) for _ in range(setting.warmup + setting.repeats)], agreed
