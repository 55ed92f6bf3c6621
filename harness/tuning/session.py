"""A run of the training loop for a stage: what its options mean, the curve, checkpoints and resume, the verified masks.

`fit` is a generator like the loop: it yields progress after every step and returns a summary. With a ramp it prunes
between phases of training, and a checkpoint follows every pruning. All that a resumed run needs lies in the newest
checkpoint, the curve included: a killed run repeats at most `checkpoint_every` steps and a pruning, and ends with the
same weights and curve bit for bit; only seconds and memory, which are measured, differ. Ctrl-C and SIGTERM end a run
after the step in hand, with a checkpoint; a pruning they end at once.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import BoolTensor, nn

from harness import rooms
from harness.memory import peak, reset_peak
from harness.problems import Problem
from harness.pruning import keep
from harness.runs.job import Progress
from harness.tasks._lengths import fitting
from harness.tuning import attach, checkpoint, devices, interrupts, reconstruction
from harness.tuning.attach import Attached
from harness.tuning.batches import Collate, steps_for, steps_for_tokens
from harness.tuning.loop import Report, train
from harness.tuning.parts import Parts, begin
from harness.tuning.phases import Phase, Ramp, by_phase, phases

Curve = list[dict[str, float]]
"""One row a step: `step` and what `Report.curve` holds."""


def learning_rate(options: Mapping[str, Any], steps: int) -> Callable[[int], float]:
    """Returns the function from steps done to the learning rate.

    Args:
        options: With `lr`, `schedule` and `warmup` (steps, or a fraction of them below 1).
        steps: Steps of the whole run, or of a phase that begins anew.

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
    ramp: Ramp | None = None,
    end: Callable[[Attached], None] = attach.merge,
    held: int = 0,
) -> Generator[Progress, None, tuple[Curve, dict[str, Any], dict[str, BoolTensor]]]:
    """Fine-tunes a model in place.

    Args:
        model: The model; it ends on the CPU in eval mode.
        features: Training examples.
        collate: Makes a padded batch of some of them.
        options: A `prepare` or `tune` section, resolved.
        scratch: Where checkpoints lie.
        teacher: The model to learn from, if a loss needs one.
        keeps: The masks [out, in] by layer; None fine-tunes densely, or begins densely with a ramp.
        ramp: The prunings between phases of training, if the model was not pruned before.
        end: What is done with what was trained: by default it is merged into the weights.
        held: Bytes in use before the models were loaded.

    Yields:
        Progress, with the values of the curve and the speed; of a pruning, in blocks.

    Returns:
        The curve, a summary, and the masks as they are in the end. The summary has steps, epochs, parameters,
        trained_parameters; of training alone seconds, step_seconds (their median), peak_memory_bytes and, of the
        process with that peak, held_memory_bytes; for a method that starts from gradients their samples, seconds and
        peak_memory_bytes; with a ramp each pruning; with a loss on hidden states teacher_mean_square: mean(t^2) per
        stack, of every block's output and then of the final norm's.

    Raises:
        Problem: There is nothing to train on, the warm-up is longer than the run, a row has more labels than the model
            reads, training diverged, a checkpoint is damaged, pruned weights are not 0.
    """
    if not len(features):
        raise Problem("there is no example to train on", where=str(options["data"]), hint="its rows may be too short")
    features = fitting(features, model)
    steps = _steps(options, features)
    found = phases(steps, ramp.targets, options["last"]) if ramp else phases(steps)
    rate = _rate(options, found, steps)
    accelerator = devices.accelerator_for(options["precision"])
    set_seed(options["seed"])
    run = begin(model, teacher, features, collate, options, keeps, ramp, accelerator)
    start, notes = _resume(scratch, run, held)
    loop = train(
        run.wrapped, run.stepper, run.aim, run.of, accelerator, steps=steps, lr=rate, start=start,
        attached=run.attached, clip=options["clip"], seed=options["seed"],
    )  # fmt: skip
    save = partial(_save, scratch, run, notes, held)
    for turn, phase in enumerate(found, 1):
        if ramp and turn > len(notes["prunings"]):
            notes["prunings"].append((yield from _prune(run, ramp, phase, turn)))
            if options["restart"]:
                run.optimizer.state.clear()
            save(phase.start)
        reset_peak(accelerator.device)
        left = itertools.islice(loop, max(phase.end - max(phase.start, start), 0))
        yield from _follow(left, steps, options["checkpoint_every"], save, notes, scratch, accelerator)
        _note_peak(notes, held, accelerator)
    summary = {"steps": steps, "epochs": steps / steps_for(1, len(features), options["batch_size"])}
    summary |= {**run.said, **_parameters(model, run.attached), **_measured(notes)}
    return notes["curve"], summary, _end(run, end)


def _note_peak(notes: dict[str, Any], held: int, accelerator: Accelerator) -> None:
    """Notes the peak of the process that added most to what it held before, of this one and those that it resumes."""
    found = peak(accelerator.device)
    if found - held >= notes["peak"] - notes["held"]:
        notes |= {"held": held, "peak": found}


def _save(scratch: Path, run: Parts, notes: dict[str, Any], held: int, step: int) -> None:
    """Verifies the zeros and writes a checkpoint."""
    _note_peak(notes, held, run.accelerator)
    notes["loss_scale"] = run.accelerator.scaler and run.accelerator.scaler.state_dict()
    keep.verify(run.model, run.attached.keeps)
    checkpoint.save(scratch, step, run.model, run.optimizer, notes, writes=run.accelerator.is_main_process)


def _end(run: Parts, end: Callable[[Attached], None]) -> dict[str, BoolTensor]:
    """Verifies the zeros, makes the model plain and whole again, and returns its masks."""
    keep.verify(run.model, run.attached.keeps)
    masks = run.attached.keeps
    devices.gather(run.model, run.accelerator)
    end(run.attached)
    devices.unwrap(run.model, run.accelerator)
    return masks


def _rate(options: Mapping[str, Any], found: Sequence[Phase], steps: int) -> Callable[[int], float]:
    """Returns the learning rate by steps done, of one schedule or of one that begins anew in every phase."""
    if options.get("restart"):
        return by_phase(found, partial(learning_rate, options))
    return learning_rate(options, steps)


def write(folder: Path, name: str, curve: Curve, summary: Mapping[str, Any]) -> None:
    """Writes a stage's `curve.jsonl` and its summary under `name`."""
    lines = "".join(json.dumps(row) + "\n" for row in curve)
    (folder / "curve.jsonl").write_text(lines, encoding="utf8")
    (folder / name).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf8")


def _parameters(model: nn.Module, attached: attach.Attached) -> dict[str, int]:
    """Returns how many parameters there are, a method's own included, and how many are neither frozen nor pruned."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    pruned = sum(int((~layer.keep[:]).sum()) for layer in attached.layers.values() if "weight" in layer.trained)
    return {"parameters": sum(p.numel() for p in model.parameters()), "trained_parameters": trained - pruned}


def _steps(options: Mapping[str, Any], features: Sequence[Any]) -> int:
    """Returns the steps that a section asks for, by steps, epochs or tokens."""
    if options["steps"]:
        return options["steps"]
    if options["tokens"]:
        return steps_for_tokens(options["tokens"], features, options["batch_size"])
    return steps_for(options["epochs"], len(features), options["batch_size"])


def _prune(run: Parts, ramp: Ramp, phase: Phase, turn: int) -> Generator[Progress, None, dict[str, Any]]:
    """Prunes the model before a phase, its method's weights merged meanwhile; returns the pruning's row."""
    attached, begun, said = run.attached, time.perf_counter(), {}
    with attach.merged(attached), _plain(run.model):
        for name, mask in (yield from ramp.prune(phase.target, attached.keeps)).items():
            attached.layers[name].keep[:] = mask
        if attached.allot:
            said["errors"] = reconstruction.errors(run.dense, run.model, ramp.batches)
    if said:
        attach.allot(attached, ramp.blocks, said["errors"], turn)
    devices.check_alike(attached.buffers, run.accelerator)
    attach.project(attached, run.optimizer.state)
    reached = keep.sparsity(attached.keeps)
    cost = {"seconds": time.perf_counter() - begun}
    return {"step": phase.start, "asked": phase.target, "reached": reached, **said, **cost}


@contextmanager
def _plain(model: nn.Module) -> Iterator[None]:
    """Takes off what accelerate wraps around the forward: a pruning pauses passes, and autocast would not be left."""
    wrapped = vars(model).pop("forward", None)
    try:
        yield
    finally:
        if wrapped is not None:
            model.forward = wrapped


def _measured(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the training cost, and the prunings between its phases."""
    cost = {"seconds": sum(notes["seconds"]), "step_seconds": statistics.median(notes["seconds"])}
    prunings = {"prunings": notes["prunings"]} if notes["prunings"] else {}
    scaled = [row["skipped"] for row in notes["curve"] if "skipped" in row]
    skipped = {"skipped_steps": int(sum(scaled))} if scaled else {}
    memory = {"held_memory_bytes": notes["held"], "peak_memory_bytes": notes["peak"]}
    return {**cost, **memory, **prunings, **skipped}


def _resume(scratch: Path, run: Parts, held: int) -> tuple[int, dict[str, Any]]:
    """Returns the steps done and the notes of the newest checkpoint after loading it, or those of a fresh start."""
    newest = checkpoint.newest(scratch)
    if newest is None:
        return 0, {"curve": [], "seconds": [], "held": held, "peak": held, "prunings": []}
    start, notes = checkpoint.load(newest, run.model, run.optimizer)
    if run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(notes["loss_scale"])
    keep.verify(run.model, run.attached.keeps)
    attach.project(run.attached, run.optimizer.state)
    return start, {"held": held, **notes}  # a checkpoint of an earlier version does not say


def _follow(
    loop: Iterator[Report], steps: int, every: int, save: Callable[[int], None], notes: dict[str, Any], scratch: Path,
    accelerator: Accelerator,
) -> Iterator[Progress]:  # fmt: skip
    """Goes through the loop: notes the curve, checkpoints, and passes progress on."""
    stopped = False
    with interrupts.held() as wanted:
        try:
            for report in loop:
                notes["curve"].append({"step": report.step, **report.curve})
                notes["seconds"].append(report.seconds)
                stopped = devices.agreed(wanted(), accelerator)
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
