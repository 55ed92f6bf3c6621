"""The lanes of `harness bench tune`: what each trains, on what model, and one step of it.

Lanes that are no method of ours: `peft`, the library's LoRA; `naive`, the masked product `x (W + s (B A) o M)^T` left
to autograd; `dense`, all weights without masks. Besides: SquareHead's step, of the model that the lane `masked` trains,
and its teacher's forward; of `lors`, whose lane begins as LoRA does, what its own default start takes once: the
gradient of one sequence (of `samples` that it averages) and the directions of all layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import BoolTensor, Tensor, nn
from torch.nn.functional import linear

from harness import models, rooms
from harness.bench.tune_table import DIRECTIONS, GRADIENT, TAUGHT, TEACHER
from harness.tuning import attach
from harness.tuning.attach import DENSE, Attached
from harness.tuning.devices import accelerator_for, spread
from harness.tuning.loop import train
from harness.tuning.methods.lors import directions
from harness.tuning.objective import Objective, objective, teach
from harness.tuning.optimizer import adamw
from harness.tuning.slopes import mean_gradients

OTHERS = ("peft", "naive", "dense")
INTERVAL, WINDOW = 4, 2
"""Of a method whose positions move: the shortest in which every step but one looks at gradients."""


@dataclass(frozen=True)
class Task:
    """What every lane is to do.

    Attributes:
        tokens: Length of the one sequence of a batch.
        rank: Of every low-rank method, with alpha = rank.
        sparsity: Fraction of zeros.
        precision: Arithmetic of the forward pass: fp32, or bf16 (autocast over fp32 weights).
    """

    tokens: int
    rank: int
    sparsity: float
    precision: str = "fp32"


@dataclass(frozen=True)
class Student:
    """A model that trains: with the method attached to it, and its optimiser."""

    model: nn.Module
    attached: Attached
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True)
class Lane:
    """Something that is timed.

    Attributes:
        name: Its name.
        step: One step of it.
        held: Returns the tensors that it holds between steps.
        blocks: What of its model can be compiled.
        steps: How many it takes until every kind of step was done.
        index_bytes: Of the positions of what it trains, where these are not whole tensors.
    """

    name: str
    step: Callable[[], object]
    held: Callable[[], list[Tensor]]
    blocks: tuple[nn.Module, ...] = ()
    steps: int = 1
    index_bytes: int = 0


def choice(name: str, task: Task) -> str:
    """Returns the text of a method as it is benchmarked: low-rank ones at the task's rank, without a search for it."""
    known = rooms.ROOMS["method"].method(name).options
    given = {"rank": task.rank, "alpha": task.rank, "init": "kaiming", "interval": INTERVAL, "window": WINDOW}
    if name == "spp":
        given = {}
    return f"{name}:" + ",".join(f"{option}={value}" for option, value in given.items() if option in known)


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
    """Yields a lane for each name, then those of SquareHead, of its teacher's forward, and of the start of `lors`.

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
        yield _lane(name, student, batch, aim, task)
    taught = students.get("masked") or _student("masked", model, keeps, task)
    terms = rooms.resolve_terms("loss", "cross_entropy + squarehead")
    aim = objective(terms, taught.model, copied(model, share=True))
    yield _lane(TAUGHT, taught, batch, aim, task)
    forward = _cast(partial(teach, aim, batch), task)
    yield Lane(TEACHER, forward, lambda: list(aim.teacher.parameters()), _blocks(aim.teacher))
    if "lors" in students:
        yield from _start(model, list(keeps), batch, task)


def _start(model: nn.Module, layers: list[str], batch: Mapping[str, Tensor], task: Task) -> Iterator[Lane]:
    """Yields what LoRS's own start takes: a sequence's gradient, and the first directions of every layer's."""
    own = copied(model, share=True)
    aim = objective(rooms.resolve_terms("loss", "cross_entropy"), own)
    accelerator, found = accelerator_for(task.precision), {}

    def gradient() -> None:
        found.update(mean_gradients(own, aim, lambda _: [batch], accelerator, layers, 1))

    def first() -> None:
        for name in layers:
            directions(found[name].to(own.device), task.rank)

    yield Lane(GRADIENT, gradient, lambda: [*batch.values(), *own.parameters()], _blocks(own))
    yield Lane(DIRECTIONS, first, lambda: list(found.values()))


def _cast(work: Callable[[], object], task: Task) -> Callable[[], object]:
    """Returns the work in the task's arithmetic."""
    accelerator = accelerator_for(task.precision)

    def run() -> object:
        with accelerator.autocast():
            return work()

    return run


def _blocks(model: nn.Module) -> tuple[nn.Module, ...]:
    return tuple(part.module for part in models.blocks(model))


def copied(model: nn.Module, *, share: bool) -> nn.Module:
    """Returns a copy of a model, with the same tensors if they are shared."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()} if share else None)


def _student(name: str, model: nn.Module, keeps: Mapping[str, BoolTensor], task: Task) -> Student:
    """Returns a model that trains as a lane's name says."""
    trains = name == "dense" or (name not in OTHERS and not _constant(name, "FREEZES"))
    moves = name not in OTHERS and "evolve" in rooms.ROOMS["method"].method(name).verbs  # and prunes in place
    own, attached = copied(model, share=not (trains or moves)), DENSE
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


def _lane(name: str, student: Student, batch: Mapping[str, Tensor], aim: Objective, task: Task) -> Lane:
    """Returns the lane of a model's training steps."""
    accelerator = accelerator_for(task.precision)
    wrapped, stepper = spread(student.model, student.optimizer, accelerator)
    given = {"steps": 10**9, "lr": lambda _: 1e-5, "attached": student.attached}
    loop = train(wrapped, stepper, aim, lambda *_: [batch], accelerator, **given)
    positions = [b.nbytes for known, b in student.model.named_buffers() if known.endswith(".indices")]
    return Lane(
        name,
        partial(next, loop),
        lambda: [*batch.values(), *_tensors(student.model, student.optimizer)],
        _blocks(student.model),
        INTERVAL + WINDOW if positions else 2,
        sum(positions),
    )


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Returns what a model and its optimiser hold, its teacher left aside."""
    state = [value for each in optimizer.state.values() for value in each.values() if isinstance(value, Tensor)]
    return [*model.parameters(), *model.buffers(), *state]
