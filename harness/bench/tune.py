"""What a step of fine-tuning takes, method beside method: time, memory, FLOPs (`harness bench tune`).

Each lane is a model of its own, which shares what it does not train with the others, and takes whole steps of the
training loop: forward, backward, update, and what the method does after it. A round is a step of every lane, each round
begins with another, and what is reported is the median with the smallest and largest, of times and of each round's
ratio to our `lora`. Bytes and FLOPs are counted in a step of their own (`cost.py`). Masks are random: no time depends
on where the zeros are.

Lanes that are no method of ours: `peft`, the library's LoRA; `naive`, the masked product `x (W + s (B A) o M)^T` left
to autograd; `dense`, all weights without masks. Besides: SquareHead's step, of the model that the lane `masked` trains,
and its teacher's forward.
"""

from __future__ import annotations

import copy
import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import BoolTensor, Tensor, nn
from torch.nn.functional import linear
from transformers import LlamaConfig, LlamaForCausalLM

from harness import models, rooms
from harness.bench import cost, measure
from harness.problems import Problem, unknown
from harness.tracking.environment import environment
from harness.tuning import attach
from harness.tuning.attach import DENSE, Attached
from harness.tuning.devices import accelerator_for, spread
from harness.tuning.loop import train
from harness.tuning.objective import Objective, objective, teach
from harness.tuning.optimizer import adamw

BLOCK = "llama-7b-block"
"""The name of a model made here: one block of LLaMA-7B with a small vocabulary, random weights."""
OTHERS = ("peft", "naive", "dense")
REFERENCE = "lora"
TAUGHT, TEACHER = "squarehead", "teacher forward"


@dataclass(frozen=True)
class Task:
    """What every lane is to do.

    Attributes:
        tokens: Length of the one sequence of a batch.
        rank: Of every low-rank method, with alpha = rank.
        sparsity: Fraction of zeros.
    """

    tokens: int
    rank: int
    sparsity: float


@dataclass(frozen=True)
class Student:
    """A model that trains: with the method attached to it, and its optimiser."""

    model: nn.Module
    attached: Attached
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class Lane:
    """Something that is timed: one step of it, and the tensors that it holds between steps."""

    name: str
    step: Callable[[], object]
    held: Callable[[], list[Tensor]]


def choice(name: str, task: Task) -> str:
    """Returns the text of a method as it is benchmarked: low-rank ones at the task's rank, without a search for it."""
    known = rooms.ROOMS["method"].method(name).options
    given = {"rank": task.rank, "alpha": task.rank, "init": "kaiming"}
    if name == "spp":
        given = {}
    return f"{name}:" + ",".join(f"{option}={value}" for option, value in given.items() if option in known)


def block(seed: int = 0) -> nn.Module:
    """Returns a LLaMA of one block with the 7B model's widths and a vocabulary of 256."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=256, num_hidden_layers=1, tie_word_embeddings=True))


def prune(model: nn.Module, sparsity: float) -> dict[str, BoolTensor]:
    """Sets random weights of a model's prunable layers to 0 and returns the masks [out, in] by layer."""
    keeps = {}
    with torch.no_grad():
        for part in models.blocks(model):
            for found in part.linears:
                weight = found.module.weight
                keeps[found.name] = torch.rand(weight.shape, device=weight.device) >= sparsity
                weight.mul_(keeps[found.name])
    return keeps


def lanes(model: nn.Module, keeps: Mapping[str, BoolTensor], names: Sequence[str], task: Task) -> Iterator[Lane]:
    """Yields a lane for each name, then that of SquareHead and of its teacher's forward.

    Args:
        model: The pruned model; lanes share its weights.
        keeps: Its masks.
        names: Methods of the room, and of `OTHERS`.
        task: What they do.
    """
    ids = torch.randint(model.config.vocab_size, (1, task.tokens), device=model.device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    students = {name: _student(name, model, keeps, task) for name in names}
    for name, student in students.items():
        aim = objective(rooms.resolve_terms("loss", "cross_entropy"), student.model)
        yield _lane(name, student, batch, aim)
    taught = students.get("masked") or _student("masked", model, keeps, task)
    terms = rooms.resolve_terms("loss", "cross_entropy + squarehead")
    aim = objective(terms, taught.model, copied(model, share=True))
    yield _lane(TAUGHT, taught, batch, aim)
    yield Lane(TEACHER, partial(teach, aim, batch), lambda: list(aim.teacher.parameters()))


def copied(model: nn.Module, *, share: bool) -> nn.Module:
    """Returns a copy of a model, with the same tensors if they are shared."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()} if share else None)


def _student(name: str, model: nn.Module, keeps: Mapping[str, BoolTensor], task: Task) -> Student:
    """Returns a model that trains as a lane's name says."""
    trains = name == "dense" or (name not in OTHERS and not _constant(name, "FREEZES"))
    own, attached = copied(model, share=not trains), DENSE
    if trains:
        own.requires_grad_(True)
    if name == "peft":
        own = _with_peft(own, keeps, task)
    elif name == "naive":
        own = _with_naive(own, keeps, task)
    elif name != "dense":
        attached = attach.attach(own, keeps, choice(name, task))
    aged = name not in OTHERS and _constant(name, "AGED")
    return Student(own, attached, adamw(own, lr=1e-5, aged=aged))


def _constant(name: str, constant: str) -> bool:
    return bool(rooms.ROOMS["method"].method(name).constants.get(constant))


def _with_peft(model: nn.Module, keeps: Mapping[str, BoolTensor], task: Task) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=task.rank, lora_alpha=task.rank, target_modules=sorted(keeps))
    return get_peft_model(model, config).get_base_model()


def _with_naive(model: nn.Module, keeps: Mapping[str, BoolTensor], task: Task) -> nn.Module:
    """Gives every pruned layer the masked low-rank product as autograd computes it."""
    model.requires_grad_(False)
    for name, keep in keeps.items():
        module = model.get_submodule(name)
        rows, columns = module.weight.shape
        module.lora_A = nn.Parameter(torch.randn(task.rank, columns, device=keep.device) / columns**0.5)
        module.lora_B = nn.Parameter(torch.zeros(rows, task.rank, device=keep.device))
        module.register_buffer(attach.KEEP, keep)
        module.forward = partial(_naive, module)
    return model


def _naive(module: nn.Module, x: Tensor) -> Tensor:
    return linear(x, module.weight + module.lora_B @ module.lora_A * module.keep, module.bias)


def _lane(name: str, student: Student, batch: Mapping[str, Tensor], aim: Objective) -> Lane:
    """Returns the lane of a model's training steps."""
    accelerator = accelerator_for("fp32")
    wrapped, stepper = spread(student.model, student.optimizer, accelerator)
    given = {"steps": 10**9, "lr": lambda _: 1e-5, "attached": student.attached}
    loop = train(wrapped, stepper, aim, lambda *_: [batch], accelerator, **given)
    return Lane(name, partial(next, loop), lambda: [*batch.values(), *_tensors(student.model, student.optimizer)])


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Returns what a model and its optimiser hold, its teacher left aside."""
    state = [value for each in optimizer.state.values() for value in each.values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *state]


Tell = Callable[[str, float], None]


def race(found: Sequence[Lane], repeats: int, tell: Tell) -> list[dict[str, Any]]:
    """Counts a step of every lane, then times `repeats` interleaved ones; returns a row each.

    Args:
        found: The lanes.
        repeats: Rounds.
        tell: Called after every timed step with the lane's name and its seconds.
    """
    counted = []
    for lane in found:
        lane.step()
        counted.append(cost.count(lane.step, lane.held()))
    seconds: list[list[float]] = [[] for _ in found]
    for turn in range(repeats):
        for place in range(len(found)):
            number = (turn + place) % len(found)
            seconds[number].append(_timed(found[number].step))
            tell(found[number].name, seconds[number][-1])
    return [
        {"name": lane.name, "seconds": measure.spread(times), "runs": times, **asdict(taken)}
        for lane, times, taken in zip(found, seconds, counted, strict=True)
    ]


def _timed(work: Callable[[], object]) -> float:
    _wait()
    begun = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - begun


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(rows: Sequence[Mapping[str, Any]], name: str, to: Sequence[str]) -> dict[str, float]:
    """Returns the spread, over the rounds, of a lane's seconds to the sum of others'."""
    by_name = {row["name"]: row["runs"] for row in rows}
    others = [sum(each) for each in zip(*(by_name[other] for other in to), strict=True)]
    return measure.spread([a / b for a, b in zip(by_name[name], others, strict=True)])


def command(
    workloads: Sequence[str],
    names: Sequence[str],
    *,
    tokens: int,
    rank: int,
    sparsity: float,
    repeats: int,
    out: Path,
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

    Raises:
        Problem: There is no such method or model, or `lora` is not among the lanes.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from harness.bench import tune_table

    have = rooms.ROOMS["method"].names()
    for name in names:
        if name not in (*have, *OTHERS):
            raise unknown("method of this benchmark", name, (*have, *OTHERS))
    if REFERENCE not in names:
        raise Problem("ratios are to our lora, which is not among the methods", hint=f"add {REFERENCE}")
    task, console = Task(tokens, rank, sparsity), Console(highlight=False)
    sources = {workload: _source(workload) for workload in workloads}
    said = {
        "benchmark": "tune",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **asdict(task),
        "methods": {name: choice(name, task) for name in names if name not in OTHERS},
        "threads": torch.get_num_threads(),
        "workloads": [],
        "environment": environment(),
    }
    for workload, (identity, folder) in sources.items():
        model = block() if folder is None else models.load(folder)
        model.to(accelerator_for("fp32").device)
        torch.manual_seed(0)
        keeps = prune(model, sparsity)
        rows = race(
            list(lanes(model, keeps, names, task)),
            repeats,
            lambda name, seconds, of=workload: console.print(
                f"{Path(of).name} {name:<20}{seconds:8.2f} s", style="dim"
            ),
        )
        said["workloads"].append({"model": identity, "lanes": rows})
    paths = tune_table.write(said, out)
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
