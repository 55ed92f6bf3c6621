"""A run of the training loop for a stage: what its options mean, the curve, checkpoints and resume, the verified masks.

`fit` is a generator like the loop: it yields progress after every step and returns a summary. All that a resumed run
needs lies in the newest checkpoint, the curve included: a killed run repeats at most `checkpoint_every` steps and ends
with the same weights and curve bit for bit; only its `seconds`, which are measured, differ. Ctrl-C and SIGTERM end a
run after the step in hand, with a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import BoolTensor, nn

from harness import rooms
from harness.data._rows import head
from harness.device import device
from harness.problems import Problem
from harness.pruning import keep
from harness.runs.job import Progress
from harness.tasks._lengths import fitting
from harness.tuning import attach, checkpoint, interrupts
from harness.tuning.batches import Collate, batches, steps_for
from harness.tuning.loop import Report, train
from harness.tuning.losses.squarehead import teacher_scale
from harness.tuning.objective import Objective, objective, teach
from harness.tuning.optimizer import adamw

Curve = list[dict[str, float]]
"""One row a step: `step` and what `Report.curve` holds."""


def rows_for(options: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Returns the rows that a section's `data`, `split` and `rows` name, lazily."""
    return head(rooms.bind("data", options["data"])(options["split"]), options["rows"])


def examples_for(
    rows: Sequence[Mapping[str, Any]], options: Mapping[str, Any], processor: Any
) -> tuple[Sequence[Any], Collate]:
    """Returns the training examples that a section's task makes of rows, and the function that collates them."""
    task = rooms.parse(options["task"]).name
    features = rooms.bind("task", options["task"], "examples")(rows, processor)
    return features, partial(rooms.load("task", task).collate, processor=processor)


def accelerator_for(precision: str) -> Accelerator:
    """Returns an accelerator for the harness's device; where that names a GPU, it becomes the current one.

    Args:
        precision: "fp32", or "bf16" for autocast over fp32 weights.

    Raises:
        Problem: The device has no bf16, or accelerate takes another device than the harness's.
    """
    chosen = device()
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)  # accelerate asks for "cuda", which is the current device
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps a process's first device and precision
    mixed = {"fp32": "no", "bf16": "bf16"}[precision]
    try:
        accelerator = Accelerator(mixed_precision=mixed, cpu=chosen.type == "cpu")
    except ValueError as error:
        raise Problem(f"this device cannot train in {precision}: {error}", hint="write precision: fp32") from None
    if _numbered(accelerator.device) != _numbered(chosen):
        hint = "a launcher gives each process its device: leave HARNESS_DEVICE unset under one"
        raise Problem(f"accelerate trains on {accelerator.device}, not on {chosen}", where="HARNESS_DEVICE", hint=hint)
    return accelerator


def _numbered(place: torch.device) -> torch.device:
    """Returns a device with its number: "cuda" alone means the current one."""
    return torch.device("cuda", torch.cuda.current_device()) if place == torch.device("cuda") else place


def learning_rate(options: Mapping[str, Any], steps: int) -> Callable[[int], float]:
    """Returns the function from steps done to the learning rate.

    Args:
        options: With `lr`, `schedule` and `warmup` (steps, or a fraction of them below 1).
        steps: Steps of the whole run.

    Raises:
        Problem: The warm-up is longer than the run, so that the peak rate is never reached.
    """
    given = options["warmup"]
    warmup = round(given * steps) if given < 1 else int(given)
    if warmup > steps:
        hint = f"epochs: {options['epochs']} of these rows are so few" if options.get("epochs") else None
        raise Problem(f"{warmup} steps of warm-up are more than the {steps} steps", where="warmup", hint=hint)
    factor = rooms.bind("schedule", options["schedule"])
    return lambda step: options["lr"] * factor(step, steps, warmup)


def fit(
    model: nn.Module,
    features: Sequence[Any],
    collate: Collate,
    options: Mapping[str, Any],
    scratch: Path,
    *,
    teacher: nn.Module | None = None,
    keeps: Mapping[str, BoolTensor] | None = None,
) -> Generator[Progress, None, tuple[Curve, dict[str, Any]]]:
    """Fine-tunes a model in place.

    Args:
        model: The model; it ends on the CPU in eval mode, its masks verified.
        features: Training examples.
        collate: Makes a padded batch of some of them.
        options: A `prepare` or `tune` section, resolved.
        scratch: Where checkpoints lie.
        teacher: The model to learn from, if a loss needs one.
        keeps: The masks [out, in] by layer; None fine-tunes densely.

    Yields:
        Progress, with the values of the curve and the speed.

    Returns:
        The curve, and a summary: steps, epochs, seconds of training, parameters, trained_parameters, and with a loss on
        hidden states teacher_mean_square: mean(t^2) per stack, of every block's output and then of the final norm's.

    Raises:
        Problem: There is nothing to train on, the warm-up is longer than the run, a row has more labels than the model
            reads, training diverged, a checkpoint is damaged, pruned weights are not 0.
    """
    if not len(features):
        raise Problem("there is no example to train on", where=str(options["data"]), hint="its rows may be too short")
    keeps, size, seed = keeps or {}, options["batch_size"], options["seed"]
    steps = options["steps"] or steps_for(options["epochs"], len(features), size)
    rate, clip = learning_rate(options, steps), options["clip"]
    accelerator = accelerator_for(options["precision"])
    set_seed(seed)
    model.to(accelerator.device)
    attached = attach.attach(model, keeps, options["method"]) if keeps else attach.DENSE
    teacher = None if teacher is None else teacher.to(accelerator.device)
    aim = objective(rooms.resolve_terms("loss", options["loss"]), model, teacher)
    beta1, beta2 = options["betas"]
    optimizer = adamw(model, lr=options["lr"], weight_decay=options["weight_decay"], beta1=beta1, beta2=beta2)
    features = fitting(features, model)
    of = batches(features, collate, batch_size=size, micro_batch=size // options["accumulation"], seed=seed)
    summary = {
        "steps": steps,
        "epochs": steps / steps_for(1, len(features), size),
        **_parameters(model, attached),
        **_teacher_scale(aim, of, accelerator),
    }
    start, notes = _resume(scratch, model, optimizer, keeps)
    wrapped, stepper = accelerator.prepare(model, optimizer)
    loop = train(
        wrapped, stepper, aim, of, accelerator, steps=steps, lr=rate, start=start, attached=attached, clip=clip
    )

    def save(step: int) -> None:
        checkpoint.save(scratch, step, model, optimizer, notes)
        keep.verify(model, keeps)

    yield from _follow(loop, steps, options["checkpoint_every"], save, notes, scratch)
    attach.merge(attached)
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False).to("cpu").eval()
    keep.verify(model, keeps)
    return notes["curve"], {**summary, "seconds": notes["seconds"]}


def write(folder: Path, name: str, curve: Curve, summary: Mapping[str, Any]) -> None:
    """Writes a stage's `curve.jsonl` and its summary under `name`."""
    lines = "".join(json.dumps(row) + "\n" for row in curve)
    (folder / "curve.jsonl").write_text(lines, encoding="utf8")
    (folder / name).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf8")


def _parameters(model: nn.Module, attached: attach.Attached) -> dict[str, int]:
    """Returns how many parameters there are, a method's own included, and how many are neither frozen nor pruned."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    pruned = sum(int((~layer.keep).sum()) for layer in attached.layers.values() if "weight" in layer.trained)
    return {"parameters": sum(p.numel() for p in model.parameters()), "trained_parameters": trained - pruned}


def _resume(
    scratch: Path, model: nn.Module, optimizer: Any, keeps: Mapping[str, BoolTensor]
) -> tuple[int, dict[str, Any]]:
    """Returns the steps done and the notes of the newest checkpoint after loading it, or those of a fresh start."""
    newest = checkpoint.newest(scratch)
    if newest is None:
        return 0, {"curve": [], "seconds": 0.0}
    start, notes = checkpoint.load(newest, model, optimizer)
    keep.verify(model, keeps)
    return start, notes


def _teacher_scale(
    aim: Objective, of: Callable[[int], list[Any]], accelerator: Accelerator
) -> dict[str, dict[str, tuple[float, ...]]]:
    """Returns what the teacher's hidden states measure on the first micro-batch, if the objective reads them."""
    if not aim.teacher_stacks:
        return {}
    batch = {name: value.to(accelerator.device) for name, value in of(0)[0].items()}
    with accelerator.autocast():
        return {"teacher_mean_square": teacher_scale(teach(aim, batch))}


def _follow(
    loop: Iterator[Report], steps: int, every: int, save: Callable[[int], None], notes: dict[str, Any], scratch: Path
) -> Iterator[Progress]:
    """Goes through the loop: notes the curve, checkpoints, and passes progress on."""
    stopped = False
    with interrupts.held() as wanted:
        try:
            for report in loop:
                notes["curve"].append({"step": report.step, **report.curve})
                notes["seconds"] += report.seconds
                stopped = wanted()
                if stopped or (report.step % every == 0 and report.step < steps):
                    save(report.step)
                if stopped:
                    break
                speed = {"samples_per_second": report.samples / report.seconds}
                speed["tokens_per_second"] = report.tokens / report.seconds
                try:
                    yield Progress(report.step, steps, {**report.curve, **speed})
                except GeneratorExit:
                    save(report.step)
                    raise
        except Problem as problem:
            kept = checkpoint.newest(scratch)
            said = f"the last good checkpoint is kept: {kept}" if kept else "there was no checkpoint yet"
            hint = "; ".join(filter(None, (problem.hint, said)))
            raise Problem(problem.what, where=problem.where, hint=hint) from problem
    if stopped:
        raise KeyboardInterrupt
