"""What a step of fine-tuning takes, method beside method: time, memory, FLOPs (`harness bench tune`).

Each lane (`tune_lanes.py`) is a model of its own, which shares what it does not train with the others, and takes whole
steps of the training loop: forward, backward, update, and what the method does after it. A round is a step of every
lane, each round begins with another, and what is reported is the median with the smallest and largest, of times and of
each round's ratio to our `lora`. Bytes and FLOPs are counted in steps of their own (`cost.py`), the most of as many as
a method needs to do all that it ever does: two, since the optimiser has no state in the first; of one whose positions
move, an interval and the window after it, the shortest that there are. Masks are random: no time depends on where the
zeros are. With `compile` every block is compiled before it is timed, and counted as it was before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness import models, rooms
from harness.bench import cost, measure, tune_table
from harness.bench.record import record, write
from harness.bench.tune_lanes import OTHERS, Lane, Task, choice, lanes, prune
from harness.bench.tune_table import REFERENCE
from harness.problems import Problem, unknown
from harness.tuning.devices import accelerator_for

BLOCK = "llama-7b-block"
"""The name of a model made here: one block of LLaMA-7B with a small vocabulary, random weights."""
PRECISIONS = ("fp32", "bf16")


def block(seed: int = 0) -> nn.Module:
    """Returns a LLaMA of one block with the 7B model's widths and a vocabulary of 256."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=256, num_hidden_layers=1, tie_word_embeddings=True))


Tell = Callable[[str, float], None]


def race(found: Sequence[Lane], repeats: int, tell: Tell, *, compiled: bool = False) -> list[dict[str, Any]]:
    """Counts the steps of every lane, then times `repeats` interleaved ones; returns a row each.

    Args:
        found: The lanes.
        repeats: Rounds.
        tell: Called after every timed step with the lane's name and its seconds.
        compiled: Whether the lanes' blocks are compiled before they are timed.
    """
    counted = [_most([cost.count(lane.step, lane.held()) for _ in range(lane.steps)]) for lane in found]
    for lane in found if compiled else ():
        for block in lane.blocks:
            block.compile()
        lane.step()
    seconds: list[list[float]] = [[] for _ in found]
    for turn in range(repeats):
        for place in range(len(found)):
            number = (turn + place) % len(found)
            seconds[number].append(_timed(found[number].step))
            tell(found[number].name, seconds[number][-1])
    return [
        {"name": lane.name, "seconds": measure.spread(times), "runs": times, **taken, "index_bytes": lane.index_bytes}
        for lane, times, taken in zip(found, seconds, counted, strict=True)
    ]


def _most(taken: Sequence[cost.Cost]) -> dict[str, int]:
    """Returns the most of each count over some steps."""
    return {name: max(asdict(each)[name] for each in taken) for name in asdict(taken[0])}


def _timed(work: Callable[[], object]) -> float:
    _wait()
    begun = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - begun


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def command(
    workloads: Sequence[str],
    names: Sequence[str],
    *,
    tokens: int,
    rank: int,
    sparsity: float,
    repeats: int,
    out: Path,
    precision: str = "fp32",
    compiled: bool = False,
) -> None:
    """Benchmarks steps of fine-tuning: runs, tells of each step, writes the record and prints the table.

    Args:
        workloads: Models by name or folder, and `llama-7b-block`.
        names: The lanes, our `lora` among them: methods of the room, `peft`, `naive`, `dense`.
        tokens: Length of the one sequence of a batch.
        rank: Of every low-rank method.
        sparsity: Fraction of zeros.
        repeats: Rounds.
        out: The record; its table is written beside it.
        precision: Arithmetic of the forward pass: fp32 or bf16.
        compiled: Whether every block is compiled before it is timed.

    Raises:
        Problem: There is no such method, model or precision, or `lora` is not among the lanes.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    have = rooms.ROOMS["method"].names()
    for name in names:
        if name not in (*have, *OTHERS):
            raise unknown("method of this benchmark", name, (*have, *OTHERS))
    if REFERENCE not in names:
        raise Problem("ratios are to our lora, which is not among the methods", hint=f"add {REFERENCE}")
    if precision not in PRECISIONS:
        raise unknown("precision of this benchmark", precision, PRECISIONS)
    task, console = Task(tokens, rank, sparsity, precision), Console(highlight=False)
    sources = {workload: _source(workload) for workload in workloads}
    methods = {name: choice(name, task) for name in names if name not in OTHERS}
    asked = {**asdict(task), "compiled": compiled, "methods": methods, "threads": torch.get_num_threads()}
    said = record("tune", **asked, workloads=[])
    for workload, (identity, folder) in sources.items():
        model = block() if folder is None else models.load(folder)
        model.to(accelerator_for(precision).device)
        torch.manual_seed(0)
        keeps = prune(model, sparsity)
        rows = race(
            list(lanes(model, keeps, names, task)),
            repeats,
            lambda name, seconds, of=workload: console.print(
                f"{Path(of).name} {name:<24}{seconds:8.2f} s", style="dim"
            ),
            compiled=compiled,
        )
        said["workloads"].append({"model": identity, "lanes": rows})
    paths = write(said, tune_table.table(said), out)
    console.print(Markdown(tune_table.table(said)))
    console.print(*paths, sep="\n", markup=False)


def _source(workload: str) -> tuple[str, Path | None]:
    """Returns a workload's identity and folder; no folder for the block that is made here."""
    from harness.runs.origins import Origins
    from harness.sources import snapshot

    if workload == BLOCK:
        return BLOCK, None
    origins = Origins()
    source = origins.model(workload)
    origins.check()
    folder = snapshot(source)
    if folder is None:
        raise Problem(f"the files of {workload} are not here", hint=f"`hf download {workload}` fetches them")
    return source.identity, folder
