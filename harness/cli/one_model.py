"""Commands on one model outside any experiment: prune, tune, quantize, measure, export.

An option with the name of a setting is that setting: it stands in the signature alone, and `_settings` hands it on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.common import Laid, Together
from harness.problems import Problem

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer()

OWN = ("data", "task", "teacher")
"""Options that mean something else than the settings of the same name: files and models, where an entry has choices."""

Out = Annotated[Path, typer.Option(help="The folder to write; it must not be there, or be empty.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; HARNESS_DEVICE, or the first GPU.")]
Rows = Annotated[int | None, typer.Option(help="Only the first so many rows of the split.")]
Length = Annotated[int | None, typer.Option(help="Tokens of an example of text; 2048.")]
Samples = Annotated[int | None, typer.Option(help="Calibration examples; 128.")]
Seed = Annotated[int | None, typer.Option(help="Draws the examples; 0.")]
BatchSize = Annotated[int | None, typer.Option(help="Examples per forward pass; 4.")]
Skip = Annotated[list[str] | None, typer.Option(help="Layers left as they are, by a glob of their names.")]
Split = Annotated[str | None, typer.Option(help="The split that calibrates; train.")]
Task = Annotated[str | None, typer.Option(help="How rows become examples; by the kind of the data.")]
Calibration = Annotated[
    str | None,
    typer.Option(help="A JSON Lines file, text or input_ids a line (T5: source and target), or a data set: c4."),
]
Model = Annotated[str, typer.Argument(help="A model folder, a hub name (org/name@revision), or a mirror's.")]
Measured = Annotated[str, typer.Argument(help="A model folder, one that export wrote, a hub name, or a mirror's.")]


@contextlib.contextmanager
def _whole(out: Path, device: str | None = None) -> Iterator[None]:
    """Lets work choose its device, and says of an interrupted one that nothing of it was written."""
    if device:
        os.environ["HARNESS_DEVICE"] = device
    try:
        yield
    except KeyboardInterrupt:
        raise Problem("interrupted: nothing was written", where=str(out)) from None


def _settings(context: typer.Context, section: type[BaseModel]) -> dict[str, Any]:
    """Returns the options of a command that are settings of a section, by name."""
    return {name: context.params[name] for name in section.model_fields.keys() & context.params if name not in OWN}


@app.command()
def prune(
    context: typer.Context,
    model: Model,
    out: Out,
    criterion: Annotated[str | None, typer.Option(help="Which weights matter: wanda, magnitude ...")] = None,
    solver: Annotated[str | None, typer.Option(help="Mask and weights together: sparsegpt.")] = None,
    pattern: Annotated[str | None, typer.Option(help="unstructured by default; 2:4 keeps 2 of 4.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Fraction of zeros; an N:M pattern gives it.")] = None,
    allocation: Annotated[str | None, typer.Option(help="How it is spread over the layers; uniform.")] = None,
    refiner: Annotated[str | None, typer.Option(help="Swaps pruned weights for kept ones: dsnot.")] = None,
    ramp: Annotated[str | None, typer.Option(help="Over which sparsities it goes; one_shot.")] = None,
    skip: Skip = None,
    calibration: Calibration = None,
    task: Annotated[
        str | None, typer.Option(help="By the kind of the data; language_modelling:cut=crops draws as the papers do.")
    ] = None,
    split: Split = None,
    rows: Rows = None,
    samples: Samples = None,
    length: Length = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    search_data: Annotated[str | None, typer.Option(help="What a searching allocation is judged on.")] = None,
    search_task: Annotated[str | None, typer.Option(help="How that becomes examples; by default by --task.")] = None,
    search_split: Annotated[str | None, typer.Option(help="The split of it; validation.")] = None,
    search_limit: Annotated[int | None, typer.Option(help="Only the first so many of its examples.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16, in DIR too; float32.")] = None,
    device: Device = None,
):
    """Prunes one model into a folder that transformers loads; settings as in an experiment's prune section."""
    from harness.oneoff import prune as work
    from harness.spec.sections import Prune

    with _whole(out, device):
        work.command(model, out, work.section(_settings(context, Prune), calibration, task, length))


@app.command()
def tune(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A sparse model: a folder, a hub name (org/name@revision), a mirror's.")],
    out: Out,
    data: Annotated[
        str, typer.Option(help="A JSON Lines file, text or input_ids a line (T5: source and target), or a data set.")
    ],
    lr: Annotated[float, typer.Option(help="Peak learning rate.")],
    method: Annotated[str | None, typer.Option(help="What is trained: masked, lors:rank=16, lora ...; masked.")] = None,
    loss: Annotated[str, typer.Option(help="A sum of weighted terms: cross_entropy + squarehead.")] = "cross_entropy",
    teacher: Annotated[str | None, typer.Option(help="The dense model, for a loss that learns from one.")] = None,
    mask_from_zeros: Annotated[bool, typer.Option(help="The masks are the model's exact zeros.")] = False,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Or passes over the rows.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Or tokens to train on.")] = None,
    task: Task = None,
    split: Annotated[str | None, typer.Option(help="The split that is trained on; train.")] = None,
    rows: Rows = None,
    length: Length = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per optimiser step; 16.")] = None,
    accumulation: Annotated[int | None, typer.Option(help="Micro-batches of a step; 1.")] = None,
    warmup: Annotated[float | None, typer.Option(help="Steps of warm-up, or a fraction below 1; 0.")] = None,
    schedule: Annotated[str | None, typer.Option(help="linear, cosine, constant; linear.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="AdamW's decoupled weight decay; 0.")] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient; none.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16; fp32.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the data's order and dropout; 0.")] = None,
    processes: Together = 1,
    parallel: Laid = "ddp",
    device: Device = None,
):
    """Fine-tunes one sparse model into a folder that transformers loads; settings as in an entry's tune section."""
    from harness.oneoff import tune as work
    from harness.runs.processes import team
    from harness.spec.sections import Tune

    together = team(processes, parallel)
    given = _settings(context, Tune) | {"warmup": int(warmup) if warmup and warmup.is_integer() else warmup}
    with _whole(out, device):
        options = work.section(given, data, task, length)
        work.command(model, out, options, teacher, mask_from_zeros, together)


@app.command()
def quantize(
    context: typer.Context,
    model: Model,
    out: Out,
    rounding: Annotated[str | None, typer.Option("--rounding", "--method", help="rtn or gptq; rtn.")] = None,
    bits: Annotated[int | None, typer.Option(help="Of a weight; 8.")] = None,
    group: Annotated[int | None, typer.Option(help="Inputs of a row that share a scale; the whole row.")] = None,
    symmetric: Annotated[bool | None, typer.Option(help="Grids with 0 in their middle; yes.")] = None,
    activations: Annotated[str | None, typer.Option(help="none, dynamic or static 8-bit inputs; none.")] = None,
    smooth: Annotated[float | None, typer.Option(help="SmoothQuant's migration strength, 0.5; none.")] = None,
    embeddings: Annotated[bool | None, typer.Option(help="Also the embeddings, 8 bits; no.")] = None,
    skip: Skip = None,
    calibration: Calibration = None,
    task: Task = None,
    split: Split = None,
    rows: Rows = None,
    samples: Samples = None,
    length: Length = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    device: Device = None,
):
    """Quantises one model, its zeros kept, into a folder that transformers loads; settings as in a quantize section."""
    from harness.oneoff import quantize as work
    from harness.spec.sections import Quantize

    with _whole(out, device):
        work.command(model, out, work.section(_settings(context, Quantize), calibration, task, length))


@app.command()
def measure(
    model: Measured,
    out: Out,
    engine: Annotated[list[str], typer.Option(help="packed:precision=int8, torch_int8 ...: `harness list engine`.")],
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Rows at once, 1; or several.")] = None,
    prompt: Annotated[list[int] | None, typer.Option(min=1, help="Tokens read first, 128; or several.")] = None,
    sparsity: Annotated[
        list[float] | None, typer.Option(min=0, max=0.999, help="Zero so many by magnitude first; two for break-even.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens generated.")] = 32,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU; as many as torch takes.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds, in which all engines take their turn.")] = 7,
    against: Annotated[
        str | None, typer.Option(help="The engine that speed-ups are over; dense float32, on a GPU bfloat16.")
    ] = None,
):
    """Measures how fast engines generate with a model's weights: interleaved with the dense baseline, and verified."""
    from harness import output

    output.quiet()
    from harness.inference import command
    from harness.inference.measure import Setting

    setting = Setting(tokens=tokens, repeats=repeats, threads=threads)
    sweep = command.Sweep(engine, setting, _once(batch) or (1,), _once(prompt) or (128,), _once(sparsity), against)
    with _whole(out):
        command.command(model, out, sweep)


@app.command()
def export(
    model: Measured,
    out: Out,
    format: Annotated[str, typer.Option(help="hf-dense, onnx, or packed: auto, bitmask, slot, index, 2:4.")],
    precision: Annotated[str, typer.Option(help="Of packed values: fp32, bf16, fp16, int8.")] = "fp32",
    group: Annotated[int, typer.Option(min=0, help="Columns that share an int8 scale, a multiple of 64; a row.")] = 0,
    head: Annotated[
        str, typer.Option(help="Of a packed model's output layer and embeddings tied to it: keep, or int8.")
    ] = "keep",
):
    """Writes a model packed without its zeros, as plain transformers loads it, or as an ONNX graph."""
    from harness import export as forms

    with _whole(out):
        forms.command(model, out, format, precision, group, head)


def _once(values: list | None) -> tuple:
    return tuple(dict.fromkeys(values or ()))
